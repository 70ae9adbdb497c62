"""Which photos of a set train and which test, in the two protocols that are never mixed (arrow 6).

*Normals only*: no anomaly trains, so choice, threshold and fusion see none. *Supervised*: k-fold over the
labelled anomalies; every photo is tested once, by a model that saw neither it nor its object.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.domain.errors import BadRequest
from services.trainer.bench.sets import BenchSet, Photos
from services.trainer.dataset import LabelledImage

FOLDS = 5


class Protocol(StrEnum):
    """What a fit may see."""

    NORMALS_ONLY = "normals-only"
    SUPERVISED = "supervised"


@dataclass(frozen=True, slots=True)
class Fold:
    """One fit and its test; no photo is in both."""

    train: Photos
    test: Photos


def folds_of(one: BenchSet, protocol: Protocol, seed: int) -> tuple[Fold, ...]:
    """Return the fits of a protocol on a set.

    Args:
        one: the set.
        protocol: which.
        seed: of the order in which anomalies are dealt to folds.
    """
    return _PROTOCOLS[protocol](one, seed)


def protocols_of(names: Sequence[str]) -> tuple[Protocol, ...]:
    """Return protocols by their names.

    Raises:
        BadRequest: there is no such protocol.
    """
    for name in names:
        if name not in set(Protocol):
            known = ", ".join(Protocol)
            raise BadRequest(f"There is no protocol {name}; known are {known}.", protocol=name)
    return tuple(Protocol(name) for name in names)


def _normals_only(one: BenchSet, seed: int) -> tuple[Fold, ...]:  # noqa: ARG001 - the split is the set's
    return (Fold(one.train, (*one.normals, *one.anomalies)),)


def _supervised(one: BenchSet, seed: int) -> tuple[Fold, ...]:
    """Return k folds; where masks were drawn, anomalies without a mask never train.

    The held-back normals never train and are dealt to the folds, too, so that each is scored once.
    """
    learnt = [image for image in one.anomalies if image.masks or not one.is_masked]
    only_tested = [image for image in one.anomalies if one.is_masked and not image.masks]
    parts = _dealt(learnt, lambda image: one.objects.get(image.name, image.name), seed)
    normals = _dealt(one.normals, lambda image: image.name, seed)
    others = _dealt(only_tested, lambda image: image.name, seed)
    folds = []
    for number, part in enumerate(parts):
        held = {image.name for image in part}
        train = (*one.train, *(image for image in learnt if image.name not in held))
        folds.append(Fold(train, (*normals[number], *part, *others[number])))
    return tuple(folds)


def _dealt(
    images: Sequence[LabelledImage], object_of: Callable[[LabelledImage], str], seed: int
) -> list[list[LabelledImage]]:
    """Return the images in k parts of about equal size, those of one object together."""
    by_object: dict[str, list[LabelledImage]] = {}
    for image in sorted(images, key=lambda one: one.name):
        by_object.setdefault(object_of(image), []).append(image)
    objects = list(by_object.values())
    random.Random(seed).shuffle(objects)  # noqa: S311 - a split, no secret
    parts: list[list[LabelledImage]] = [[] for _ in range(FOLDS)]
    for together in objects:
        min(parts, key=len).extend(together)
    return parts


_PROTOCOLS: Mapping[Protocol, Callable[[BenchSet, int], tuple[Fold, ...]]] = {
    Protocol.NORMALS_ONLY: _normals_only,
    Protocol.SUPERVISED: _supervised,
}
