"""The graph in 8 bits: what goes there, what it has to prove, and what is kept of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from services.trainer import precision
from services.trainer.dataset import Dataset
from services.trainer.features import FeatureExtractor
from services.trainer.fit import FittedModel
from services.trainer.precision import Judged, faster_variants, in_eight_bits, photos_to_judge
from services.vision.runtime import GraphSession
from tests.unit.trainer.pictures import pictures


@pytest.fixture(scope="module")
def judged() -> Judged:
    normals = Dataset(pictures(24))
    return photos_to_judge(normals, Dataset(pictures(4, is_bad=True)), normals.pixels(0)[None], seed=0)


@pytest.fixture(scope="module")
def graph(fitted: FittedModel) -> bytes:
    return (fitted.folder / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def smaller(graph: bytes, judged: Judged, extractor: FeatureExtractor) -> bytes:
    found = in_eight_bits(graph, judged.normals[:8], extractor.taps)
    assert found is not None
    return found


def is_faster(*_: object) -> tuple[float, float, float]:
    """Stand in for the clock, which says anything on a busy machine."""
    return 5.0, 3.0, 0.6


def test_photos_to_judge_are_normal_synthetic_and_labelled(judged: Judged) -> None:
    assert judged.normals.shape == (24, 224, 224, 3)
    assert judged.anomalies.shape == (28, 224, 224, 3)
    assert (judged.anomalies[:24] != judged.normals).any(axis=(1, 2, 3)).all()


def test_the_backbone_goes_to_eight_bits_but_for_its_first_two_convolutions(
    graph: bytes, smaller: bytes, extractor: FeatureExtractor
) -> None:
    def weights(model: bytes) -> dict[str, int]:
        """Return the type of the weights of each convolution, by the name of its output."""
        found = onnx.load_model_from_string(model).graph
        types = {one.name: one.data_type for one in found.initializer}
        inner = {node.output[0]: node.input[0] for node in found.node if node.op_type == "DequantizeLinear"}
        return {
            node.output[0]: types[inner.get(node.input[1], node.input[1])]
            for node in found.node
            if node.op_type == "Conv"
        }

    before, after = weights(graph), weights(smaller)
    assert set(before.values()) == {onnx.TensorProto.FLOAT}
    kept = [name for name, dtype in after.items() if dtype == onnx.TensorProto.FLOAT]
    # The first two of the backbone; and those that project features, behind the taps.
    backbone = set(weights(extractor.backbone.model))
    assert len(backbone - set(before)) == 0
    assert len([name for name in kept if name in backbone]) == 2
    assert list(after.values()).count(onnx.TensorProto.INT8) == len(backbone) - 2
    assert len(smaller) < len(graph)


def test_scores_stay_near_those_of_fp32(graph: bytes, smaller: bytes, judged: Judged) -> None:
    fp32, int8 = (GraphSession(one).infer(judged.anomalies[-4:]) for one in (graph, smaller))
    np.testing.assert_allclose(int8.scores, fp32.scores, rtol=0.2)
    assert int8.maps.shape == fp32.maps.shape


def test_what_is_faster_and_judges_the_same_serves(
    graph: bytes,
    judged: Judged,
    fitted: FittedModel,
    extractor: FeatureExtractor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "_speed", is_faster)
    threshold = fitted.manifest.calibration.threshold
    found = faster_variants(graph, judged, threshold, taps=extractor.taps)
    assert [one.name for one in found.variants] == ["fp32", "int8"]
    assert found.serving == "int8"
    _, int8 = found.variants
    assert {int8.file, int8.golden} == set(found.files)
    assert int8.agreement_ratio >= 0.99
    assert int8.auroc_loss <= 0.005
    assert (int8.ms, found.metrics["int8_time_ratio"]) == (3.0, 0.6)


@pytest.mark.parametrize("is_slow", [True, False])
def test_what_is_slow_or_judges_otherwise_is_not_kept_but_its_numbers_are(
    graph: bytes, judged: Judged, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    monkeypatch.setattr(precision, "_speed", lambda *_: (5.0, 4.6, 0.92) if is_slow else is_faster())
    # A threshold in the middle of the anomalies' scores, as fp32 gives them, and none for the slow one.
    scores = GraphSession(graph).infer(judged.anomalies).scores
    monkeypatch.setattr(precision, "_MIN_AGREEMENT_RATIO", 0.0 if is_slow else 1.01)
    found = faster_variants(graph, judged, float(np.median(scores)), taps=extractor.taps)
    assert [one.name for one in found.variants] == ["fp32"]
    assert (found.serving, found.files) == ("fp32", {})
    assert found.metrics["int8_time_ratio"] == (0.92 if is_slow else 0.6)
    assert 0.5 < found.metrics["int8_agreement_ratio"] <= 1


def test_a_graph_without_those_taps_stays_as_it_is(graph: bytes, judged: Judged) -> None:
    found = faster_variants(graph, judged, 1.0, taps=["f32"])
    assert [one.name for one in found.variants] == ["fp32"]
    assert found.variants[0].ms > 0
    assert found.metrics == {}
