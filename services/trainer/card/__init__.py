"""The model card: what a version was made of and what it is worth, as one page (arrow 6)."""
