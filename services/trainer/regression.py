"""The regression set of a project, replayed: what two versions make of images whose truth is known (arrow 6).

The set is what was set aside for testing, and everything that reviewers corrected. Images are read one
by one and judged in small batches, so memory does not grow with their number. Decides nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import Rejected
from services.domain.label import Origin, Split, Verdict
from services.domain.model_version import Manifest
from services.domain.promotion import Contender, DisputedImage, Evidence
from services.trainer.dataset_versions import snapshot_of
from services.trainer.datasets import DatasetEntry, Datasets
from services.vision.decode import decode
from services.vision.runtime import OnnxModel
from services.vision.scoring import judge
from services.vision.variants import to_serve
from services.vision.verdict import input_size_px

logger = logging.getLogger(__name__)

# Two versions judge these in half a minute; what more images could still show is a smaller difference
# than chance makes on a line.
MAX_IMAGES = 2000
_BATCH_IMAGES = 8


@dataclass(frozen=True, slots=True)
class RegressionImage:
    """An image and the truth.

    Attributes:
        name: the dataset entry's id.
        is_reviewed: a reviewer corrected a verdict on it.
        read: gives the encoded image; raises `Rejected` where there is none any more.
    """

    name: str
    is_anomaly: bool
    is_reviewed: bool
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What versions made of one image: for each of them whether it judges it right."""

    image: RegressionImage
    is_right: tuple[bool, ...]


def regression_set(datasets: Datasets, project: str) -> tuple[RegressionImage, ...]:
    """Return a project's regression set, reviewed images first, `MAX_IMAGES` at most.

    Where there are more, their ids choose, so that two versions meet the same images.
    """
    chosen = [entry for entry in snapshot_of(datasets.all_entries(project)).entries if _is_of_set(entry)]
    chosen.sort(key=lambda entry: (entry.origin is not Origin.REVIEW, _shuffled(entry)))
    return tuple(_image(datasets, entry) for entry in chosen[:MAX_IMAGES])


def replay(models: Sequence[OnnxModel], images: Iterable[RegressionImage]) -> Iterator[Replayed]:
    """Yield what each model makes of each image; those that cannot be read are left out."""
    sizes_px = list(dict.fromkeys(input_size_px(model.manifest) for model in models))
    readable = _readable(images, sizes_px)
    while batch := list(islice(readable, _BATCH_IMAGES)):
        pixels = {size: np.stack([inputs[size] for _, inputs in batch]) for size in sizes_px}
        verdicts = [_verdicts(model, pixels[input_size_px(model.manifest)]) for model in models]
        for at, (image, _) in enumerate(batch):
            yield Replayed(image, tuple(one[at] is image.is_anomaly for one in verdicts))


def evidence_of(replayed: Iterable[Replayed], candidate: Contender, current: Contender | None) -> Evidence:
    """Return the evidence of a replay by the candidate and, where there is one, the version that serves.

    Args:
        replayed: what the candidate, and after it the current version, made of the images.
        candidate: as proved, without counts.
        current: without counts; None where none serves.
    """
    contenders = [_Tally(one) for one in (candidate, current) if one is not None]
    disputed = []
    for one in replayed:
        for tally, is_right in zip(contenders, one.is_right, strict=True):
            tally.count(one.image, is_right=is_right)
        if not all(one.is_right):
            was_right = len(one.is_right) > 1 and one.is_right[1]
            image = one.image
            disputed.append(
                DisputedImage(image.name, image.is_anomaly, image.is_reviewed, one.is_right[0], was_right)
            )
    found = [tally.contender() for tally in contenders]
    return Evidence(found[0], found[1] if len(found) > 1 else None, tuple(disputed))


def contender_of(manifest: Manifest, proof: str, *, is_proved: bool) -> Contender:
    """Return a version before its replay."""
    served = to_serve(manifest)[0]
    return Contender(
        version=manifest.version,
        is_proved=is_proved,
        proof=proof,
        max_false_reject_ratio=manifest.calibration.max_false_reject_ratio,
        ms=served.ms or None,
    )


class _Tally:
    """Counts what one version did."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._normals = self._false_rejects = self._anomalies = self._found = 0

    def count(self, image: RegressionImage, *, is_right: bool) -> None:
        if image.is_anomaly:
            self._anomalies += 1
            self._found += is_right
        elif not image.is_reviewed:
            self._normals += 1
            self._false_rejects += not is_right

    def contender(self) -> Contender:
        return replace(
            self._contender,
            normals=self._normals,
            false_rejects=self._false_rejects,
            anomalies=self._anomalies,
            found=self._found,
        )


def _is_of_set(entry: DatasetEntry) -> bool:
    return entry.split is Split.TEST or entry.origin is Origin.REVIEW


def _shuffled(entry: DatasetEntry) -> bytes:
    return hashlib.sha256(entry.entry_id.bytes).digest()


def _image(datasets: Datasets, entry: DatasetEntry) -> RegressionImage:
    return RegressionImage(
        name=str(entry.entry_id),
        is_anomaly=entry.truth is Verdict.ANOMALY,
        is_reviewed=entry.origin is Origin.REVIEW,
        read=partial(datasets.image, entry),
    )


def _readable(
    images: Iterable[RegressionImage], sizes_px: Sequence[tuple[int, int]]
) -> Iterator[tuple[RegressionImage, dict[tuple[int, int], NDArray[np.uint8]]]]:
    """Yield images with their (H, W, 3) pixels at each model's (width, height)."""
    for image in images:
        try:
            data = image.read()
            inputs = {size: decode(data, size).pixels for size in sizes_px}
        except Rejected as error:
            logger.warning("the image %s of the regression set is left out: %s", image.name, error.message)
        else:
            yield image, inputs


def _verdicts(model: OnnxModel, pixels: NDArray[np.uint8]) -> list[bool]:
    return [judge(one, model.manifest).is_anomalous for one in model.infer(pixels)]
