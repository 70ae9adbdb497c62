"""How good a detector is, in numbers; nothing is chosen here (arrow 6)."""
