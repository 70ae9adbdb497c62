"""Feature extractors as ONNX graphs: where each comes from, and what its licence is (arrow 6)."""
