"""Which photos train and which test, by seed and name, never by what a model says of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from services.domain.label import Verdict
from services.trainer.dataset import LabelledImage


def split_normals(
    images: Sequence[LabelledImage], *, share: float = 0.7, seed: int = 0
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    """Return (training normals, everything else), both in order of name.

    Args:
        images: normal and anomalous photos.
        share: of the normals that train (0-1); at least two, if there are two: no fit takes fewer.
        seed: the same names, share and seed give the same split in any order given.
    """
    normals = sorted((one for one in images if one.label is Verdict.NORMAL), key=lambda one: one.name)
    count = max(round(share * len(normals)), min(len(normals), 2))
    training = sorted(random.Random(seed).sample(normals, count), key=lambda one: one.name)  # noqa: S311
    names = {one.name for one in training}
    rest = sorted(
        (one for one in images if one.name not in names or one.label is not Verdict.NORMAL),
        key=lambda one: one.name,
    )
    return tuple(training), tuple(rest)
