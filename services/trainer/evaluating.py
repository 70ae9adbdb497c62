"""Labelled photos + a model version -> what the version says of each beside the truth (arrow 6).

What `loupe evaluate` and `loupe bench` measure with. Every photo goes the way that serving takes: the same
decoding, graph, threshold and blur. Maps wait in a file without a name, so memory does not grow with the
number of photos. Learns nothing and chooses nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import BadRequest, ImageTooLarge, NotEnoughImages, UnreadableImage
from services.domain.label import Split, Verdict
from services.domain.model_version import Manifest
from services.trainer.dataset import LabelledImage, SkippedImage
from services.trainer.evaluation.by_type import TypeMasks
from services.trainer.evaluation.outcome import Outcome
from services.trainer.evaluation.report import Evaluation, evaluate
from services.trainer.folders import read_folder, read_labelled_folder, read_manifest_file
from services.vision.decode import decode
from services.vision.masks import on_grid
from services.vision.outputs import GraphOutputs, ImageOutputs
from services.vision.scoring import confidence_of
from services.vision.type_masks import mask_classes, whole_map
from services.vision.verdict import input_size_px

# Pixel figures are measured at this size, whatever the size of the photo or of the model's input.
MAP_PX = 224
_SIZE_PX = (MAP_PX, MAP_PX)
_BATCH_IMAGES = 8


class JudgingModel(Protocol):
    """A model version that can be run, see `services.vision.runtime.OnnxModel`."""

    @property
    def manifest(self) -> Manifest:
        """Of its folder."""

    def infer(self, batch: NDArray[np.uint8]) -> GraphOutputs:
        """Return the outputs for (N, H, W, 3) uint8 RGB of the input's size."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of n photos, and what is true.

    Attributes:
        outcomes: of each photo that can be read, in the order given.
        maps: (n, 224, 224) float32, higher is more anomalous; None where no photo has a mask.
        masks: (n, 224, 224) bool, all False where nothing was drawn; None where no photo has a mask.
        type_masks: where the version finds named types, and any mask was drawn.
        skipped: photos that were left out, with reasons.
    """

    outcomes: tuple[Outcome, ...]
    maps: NDArray[np.float32] | None = None
    masks: NDArray[np.bool_] | None = None
    type_masks: TypeMasks | None = None
    skipped: tuple[SkippedImage, ...] = ()

    def evaluation(self) -> Evaluation:
        """Return the report."""
        return evaluate(self.outcomes, maps=self.maps, masks=self.masks, type_masks=self.type_masks)


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that was read.

    Attributes:
        pixels: (H, W, 3) uint8 RGB of the size asked for.
        masks: anomaly type -> (224, 224) bool.
    """

    image: LabelledImage
    pixels: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]


def read_test_photos(place: Path) -> tuple[LabelledImage, ...]:
    """Return what of a folder or a manifest of labelled photos tests: what it says does, else all.

    A folder without folders in it that say what is normal and what is not holds good parts.

    Raises:
        BadRequest: it is neither.
        NotEnoughImages: there is no photo.
    """
    if place.is_file():
        photos = read_manifest_file(place)
    else:
        try:
            photos = read_labelled_folder(place)
        except BadRequest:
            photos = read_folder(place)
    return tuple(one for one in photos if one.split is Split.TEST) or photos


def judge_photos(
    images: Sequence[LabelledImage],
    model: JudgingModel,
    progress: Callable[[float], None] | None = None,
) -> Judged:
    """Judge labelled photos.

    Args:
        images: photos with what is true of them.
        model: the version that judges.
        progress: told the share done (0-1).

    Raises:
        NotEnoughImages: no photo can be read.
    """
    record = Record(images, model.manifest)
    skipped: list[SkippedImage] = []
    for start in range(0, len(images), _BATCH_IMAGES):
        batch = images[start : start + _BATCH_IMAGES]
        read = [read_photo(image, input_size_px(model.manifest)) for image in batch]
        seen = [one for one in read if not isinstance(one, SkippedImage)]
        skipped += [one for one in read if isinstance(one, SkippedImage)]
        if seen:
            outputs = model.infer(np.stack([one.pixels for one in seen]))
            for photo, said in zip(seen, outputs, strict=True):
                record.add(photo, said)
        if progress:
            progress((start + len(batch)) / len(images))
    if not record.outcomes:
        first = f" {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise NotEnoughImages(f"None of the {len(images)} photos can be judged.{first}", skipped=len(skipped))
    return record.judged(tuple(skipped))


def read_photo(image: LabelledImage, size_px: tuple[int, int]) -> Photo | SkippedImage:
    """Return the photo with its masks, or why it is left out."""
    if image.fault:
        return SkippedImage(image.name, image.fault)
    try:
        decoded = decode(image.read(), size_px)
        drawn = image.read_masks((decoded.width_px, decoded.height_px))
        return Photo(image, decoded.pixels, {name: on_grid(mask, MAP_PX) for name, mask in drawn.items()})
    except (UnreadableImage, ImageTooLarge, BadRequest) as error:
        return SkippedImage(image.name, error.message)
    except OSError as error:
        return SkippedImage(image.name, f"The file cannot be read: {error.strerror}.")


class Record:
    """What was said of one photo after the other."""

    def __init__(self, images: Sequence[LabelledImage], manifest: Manifest) -> None:
        """Make room for all photos."""
        self.outcomes: list[Outcome] = []
        self._manifest = manifest
        drawn = {name for image in images for name in image.masks}
        known = [one.name for one in manifest.types]
        self._types = (*known, *sorted(drawn - set(known))) if known else ()
        self._is_masked = bool(drawn)
        photos = len(images) if drawn else 0
        self._maps = _in_file((photos, MAP_PX, MAP_PX), np.float32)
        self._masks = _in_file((photos, MAP_PX, MAP_PX), np.bool_)
        planes = (photos, len(self._types), MAP_PX, MAP_PX)
        self._drawn, self._found = _in_file(planes, np.bool_), _in_file(planes, np.bool_)

    def add(self, photo: Photo, said: ImageOutputs) -> None:
        """Keep what was said of the next photo."""
        image, at, calibration = photo.image, len(self.outcomes), self._manifest.calibration
        found = self._found_planes(said)
        self.outcomes.append(
            Outcome(
                name=image.name,
                truth=image.label,
                score=said.score,
                verdict=Verdict.ANOMALY if said.score >= calibration.threshold else Verdict.NORMAL,
                confidence=confidence_of(said.score, calibration),
                types=image.all_types,
                found_types=tuple(name for name, plane in found.items() if plane.any()),
            )
        )
        if not self._is_masked:
            return
        self._maps[at] = whole_map(said, self._manifest, _SIZE_PX)
        for mask in photo.masks.values():
            self._masks[at] |= mask
        for plane, name in enumerate(self._types):
            self._drawn[at, plane] = photo.masks.get(name, False)
            self._found[at, plane] = found.get(name, False)

    def judged(self, skipped: tuple[SkippedImage, ...]) -> Judged:
        """Return all of it."""
        if not self._is_masked:
            return Judged(tuple(self.outcomes), skipped=skipped)
        count = len(self.outcomes)
        type_masks = TypeMasks(self._types, self._drawn[:count], self._found[:count]) if self._types else None
        return Judged(tuple(self.outcomes), self._maps[:count], self._masks[:count], type_masks, skipped)

    def _found_planes(self, said: ImageOutputs) -> dict[str, NDArray[np.bool_]]:
        """Return (224, 224) per type that the version knows: where its mask shows it."""
        if not self._manifest.types:
            return {}
        classes = np.concatenate(list(mask_classes(said, self._manifest, _SIZE_PX)))
        return {one.name: classes == at for at, one in enumerate(self._manifest.types, start=1)}


def _in_file(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return zeros in a file without a name, read and written as memory."""
    if not np.prod(shape):
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, mode="w+", shape=shape)
