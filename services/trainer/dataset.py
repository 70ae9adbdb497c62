"""The photos of one fit: decoded once, copies dropped, damaged files listed, batches on demand.

Pixels stay in memory up to a bound and are decoded again beyond it, so a fit's memory does not
grow with the number of photos. Does not choose which photos train (`splits`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import ImageTooLarge, UnreadableImage
from services.domain.label import Split, Verdict
from services.vision.decode import MODEL_INPUT_PX, decode

INPUT_PX = MODEL_INPUT_PX[0]
# 1,000 inputs of 224 x 224 x 3 bytes are 150 MB, a seventh of the 1 GB that a fit may take; of larger
# ones fewer are kept.
MAX_CACHED_IMAGES = 1000
BATCH_IMAGES = 8
_THUMBNAIL_PX = 28
# Photos nearer to each other than this share of the usual distance show one object twice.
_SAME_OBJECT_RATIO = 0.2


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A photo and what is known of it.

    Attributes:
        source: a file, or the encoded bytes.
        name: for reports; unique within a fit.
        label: what was said of it.
        types: anomaly types that were named, with or without a mask.
        masks: anomaly type -> PNG, white where it is (`services.vision.masks.read_mask`).
        split: what it is for; None: as the fit splits.
    """

    source: Path | bytes
    name: str
    label: Verdict = Verdict.NORMAL
    types: tuple[str, ...] = ()
    masks: Mapping[str, Path | bytes] = field(default_factory=dict)
    split: Split | None = None

    def read(self) -> bytes:
        """Return the encoded bytes."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """A photo that a fit went on without, and why."""

    name: str
    reason: str


class Dataset:
    """Distinct readable photos in the order given.

    Attributes:
        images: the photos, without copies and damaged files.
        skipped: those left out, with reasons.
        digest: SHA-256 over the names and pixels of `images`.
        input_px: side of the pixels, as the model takes them.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        progress: Callable[[float], None] | None = None,
        *,
        input_px: int = INPUT_PX,
    ) -> None:
        """Decode every photo once; unreadable ones and copies go to `skipped`."""
        self.input_px = input_px
        most_cached = MAX_CACHED_IMAGES * INPUT_PX**2 // input_px**2
        kept: list[LabelledImage] = []
        skipped: list[SkippedImage] = []
        thumbnails: list[NDArray[np.float32]] = []
        self._pixels: list[NDArray[np.uint8]] = []
        names_by_pixels: dict[bytes, str] = {}
        digest = hashlib.sha256()
        for done, image in enumerate(images, start=1):
            pixels = _read_or_reason(image, input_px)
            if progress:
                progress(done / len(images))
            if isinstance(pixels, str):
                skipped.append(SkippedImage(image.name, pixels))
                continue
            fingerprint = hashlib.sha256(pixels.tobytes()).digest()
            if fingerprint in names_by_pixels:
                reason = f"A copy of {names_by_pixels[fingerprint]}; it counts once."
                skipped.append(SkippedImage(image.name, reason))
                continue
            names_by_pixels[fingerprint] = image.name
            digest.update(image.name.encode() + b"\x00" + fingerprint)
            kept.append(image)
            thumbnails.append(_thumbnail(pixels))
            if len(self._pixels) < most_cached:
                self._pixels.append(pixels)
        self.images = tuple(kept)
        self.skipped = tuple(skipped)
        self.digest = digest.hexdigest()
        self._thumbnails = np.array(thumbnails, np.float32).reshape(len(kept), 3 * _THUMBNAIL_PX**2)

    def __len__(self) -> int:
        """Return the number of usable photos."""
        return len(self.images)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return (S, S, 3) uint8 RGB of photo `index`, S = `input_px`."""
        if index < len(self._pixels):
            return self._pixels[index]
        return decode(self.images[index].read(), (self.input_px, self.input_px)).pixels

    def batches(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of the first photo, (N, S, S, 3) uint8) with N <= 8, in order."""
        for start in range(0, len(self), BATCH_IMAGES):
            stop = min(start + BATCH_IMAGES, len(self))
            yield start, np.stack([self.pixels(index) for index in range(start, stop)])

    def groups(self) -> NDArray[np.int32]:
        """Return (n,) int32: photos with equal numbers show one object and are held out together.

        Cross-fitting that tests a photo against its own twin makes a promise too good. Twins are
        photos much nearer to each other than photos usually are, measured at each photo's
        distance to its (n / 4)-th neighbour: a camera that stands still over different parts, all
        equally near, has no twins.
        """
        count = len(self)
        numbers = np.arange(count, dtype=np.int32)
        if count < 3:
            return numbers
        rank = max(2, count // 4)
        usual = float(np.median([np.partition(self._distances(one), rank)[rank] for one in range(count)]))
        leaders: list[int] = []
        for one in range(count):
            # Joining the first leader, not the nearest photo: a slow drift must not chain
            # everything into one group. By the triangle inequality there are always two groups.
            distances = self._distances(one)[leaders]
            near = np.flatnonzero(distances < _SAME_OBJECT_RATIO * usual)
            numbers[one] = near[0] if len(near) else len(leaders)
            if not len(near):
                leaders.append(one)
        return numbers

    def _distances(self, index: int) -> NDArray[np.float32]:
        """Return (n,) root mean square differences of thumbnails to photo `index`."""
        difference = self._thumbnails - self._thumbnails[index]
        return np.asarray(np.sqrt(np.mean(difference * difference, axis=1)), np.float32)


def _read_or_reason(image: LabelledImage, input_px: int) -> NDArray[np.uint8] | str:
    """Return (S, S, 3) pixels, or why there are none."""
    try:
        return decode(image.read(), (input_px, input_px)).pixels
    except (UnreadableImage, ImageTooLarge) as error:
        return error.message
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (28 * 28 * 3,) float32 block means; cells are shared where 28 does not divide the side."""
    means = _block_means(pixels.shape[0])
    channels = pixels.transpose(2, 0, 1).astype(np.float32)
    return np.asarray((means @ channels @ means.T).ravel(), np.float32)


@lru_cache(maxsize=8)
def _block_means(length: int) -> NDArray[np.float32]:
    """Return (28, length): each row the share of every pixel in one of 28 equal stretches."""
    ends = np.arange(_THUMBNAIL_PX + 1) * length / _THUMBNAIL_PX
    covered = np.clip(
        ends[:, None] - np.arange(length), 0, 1
    )  # (29, length): share of a pixel before each end
    return np.asarray(np.diff(covered, axis=0) * _THUMBNAIL_PX / length, np.float32)
