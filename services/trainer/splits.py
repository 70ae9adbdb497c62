"""Which photos train and which test, by seed and name, never by what a model says of them."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from services.domain.label import Split, Verdict
from services.trainer.dataset import LabelledImage

# What the replaced service asks for at the least in a test, of good photos and of each kind of anomaly, and
# what it asks for in all; see `with_split`.
_LEAST_TEST, _LEAST_TO_SHARE = 10, 20
# Of more photos than that; 20 % is the usual share.
_TEST_SHARE = 0.2
_SEVERAL = "several types"


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


def with_split(
    images: Sequence[LabelledImage], groups: Sequence[int], seed: int = 0
) -> tuple[LabelledImage, ...]:
    """Return the photos, each with what it is for: as somebody said, else by rules.

    Where any photo was called a test photo, those that were not train. Otherwise a fifth of the photos test,
    stratified by verdict and single anomaly type: of every kind with 20 photos or more at least 10. Of fewer
    good photos all train. Of fewer anomalous ones of a kind half test, and more if that is less than 10 in
    all, because good photos teach without them; what the trainer says of training photos is cross-fitted.

    Args:
        images: names are distinct.
        groups: per photo, the object it shows (`Dataset.groups`); one object is never on both sides.
        seed: the same names, groups and seed give the same split in any order given.
    """
    if any(one.split is Split.TEST for one in images):
        return tuple(replace(one, split=one.split or Split.TRAIN) for one in images)
    kinds: dict[str, set[int]] = {}
    for image, group in zip(images, groups, strict=True):
        kinds.setdefault(_kind_of(image), set()).add(group)
    members: dict[int, list[LabelledImage]] = {}
    for image, group in zip(images, groups, strict=True):
        members.setdefault(group, []).append(image)
    order = {
        group: min(hashlib.sha256(f"{seed}\x1f{one.name}".encode()).digest() for one in shown)
        for group, shown in members.items()
    }
    wanted = _test_counts(images)
    training = {group for image, group in zip(images, groups, strict=True) if image.split is Split.TRAIN}
    test: set[int] = set()
    for kind in sorted(kinds):
        missing = wanted[kind] - sum(_kind_of(one) == kind for group in test for one in members[group])
        for group in sorted(kinds[kind] - test - training, key=order.__getitem__):
            size = sum(_kind_of(one) == kind for one in members[group])
            if size <= missing:
                test.add(group)
                missing -= size
    return tuple(
        replace(one, split=Split.TEST if group in test else Split.TRAIN)
        for one, group in zip(images, groups, strict=True)
    )


def _test_counts(images: Sequence[LabelledImage]) -> dict[str, int]:
    """Return how many photos of each kind test."""
    counts = Counter(map(_kind_of, images))
    normals = counts.pop(Verdict.NORMAL, 0)
    wanted = {kind: _share(count) or count // 2 for kind, count in counts.items()}
    while sum(wanted.values()) < min(_LEAST_TEST, counts.total()):
        wanted[max(sorted(counts), key=lambda kind: counts[kind] - wanted[kind])] += 1
    return {Verdict.NORMAL: _share(normals), **wanted}


def _share(count: int) -> int:
    return max(_LEAST_TEST, round(_TEST_SHARE * count)) if count >= _LEAST_TO_SHARE else 0


def _kind_of(image: LabelledImage) -> str:
    """Return what a photo is stratified by."""
    if image.label is Verdict.NORMAL:
        return Verdict.NORMAL
    types = image.all_types
    return f"{Verdict.ANOMALY} {types[0] if len(types) == 1 else _SEVERAL if types else ''}"
