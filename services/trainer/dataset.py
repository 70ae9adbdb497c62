"""The photos of one fit: decoded once, copies dropped, damaged files listed, batches on demand.

Pixels and masks stay in memory up to a bound and are decoded again beyond it, so a fit's memory does not
grow with the number of photos but by their thumbnails (10 KB each). Does not choose which photos train
(`splits`). Boxes are no masks: most of what a box holds is normal, and would be learnt as anomalous.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import BadRequest, ImageTooLarge, UnreadableImage
from services.domain.label import Split, Verdict
from services.trainer.twins import Thumbnails, thumbnail_of
from services.vision.decode import MODEL_INPUT_PX, decode
from services.vision.masks import marked_pixels, on_grid, pixels_by_colour

INPUT_PX = MODEL_INPUT_PX[0]
# 1,000 inputs of 224 x 224 x 3 bytes are 150 MB, a seventh of the 1 GB that a fit may take; of larger
# ones fewer are kept.
MAX_CACHED_IMAGES = 1000
BATCH_IMAGES = 8
# Stretched to a model's input, a photo of fewer pixels is a smooth blur with nothing in it.
MIN_SIDE_PX = 4
_NAMED_TWINS = 5


@dataclass(frozen=True, slots=True)
class ColouredMask:
    """A mask with a colour per anomaly type.

    Attributes:
        colour: `#rrggbb` of the type.
    """

    source: Path | bytes
    colour: str


MaskSource = Path | bytes | ColouredMask


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A photo and what is known of it.

    Attributes:
        source: a file, or the encoded bytes.
        name: for reports; unique within a fit.
        label: what was said of it.
        types: anomaly types that were named, with or without a mask.
        masks: anomaly type -> an image that marks it (`services.vision.masks.read_mask`).
        split: what it is for; None: as the fit splits.
        fault: why it cannot be used, known before it is opened; a plain sentence.
    """

    source: Path | bytes
    name: str
    label: Verdict = Verdict.NORMAL
    types: tuple[str, ...] = ()
    masks: Mapping[str, MaskSource] = field(default_factory=dict)
    split: Split | None = None
    fault: str = ""

    @property
    def all_types(self) -> tuple[str, ...]:
        """Anomaly types that were named or drawn, sorted."""
        return tuple(sorted({*self.types, *self.masks}))

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            BadRequest: its `fault`.
            OSError: the file cannot be read.
        """
        if self.fault:
            raise BadRequest(self.fault)
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def read_masks(self, size_px: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
        """Return anomaly type -> (height, width) bool, for a photo of that (width, height).

        A type whose colour is not in its mask is left out: colours are often listed for a whole data set.

        Raises:
            BadRequest: a mask cannot be read, does not fit the photo, marks nothing or has unknown colours.
            UnreadableImage: a mask is no image.
        """
        coloured: dict[Path | bytes, dict[str, str]] = {}
        marked: dict[str, NDArray[np.bool_]] = {}
        for name, source in self.masks.items():
            if isinstance(source, ColouredMask):
                coloured.setdefault(source.source, {})[name] = source.colour
            else:
                marked[name] = marked_pixels(_mask_bytes(source, name), size_px)
        for source, colours in coloured.items():
            marked |= pixels_by_colour(_mask_bytes(source, ", ".join(colours)), size_px, colours)
        return marked


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """A photo that a fit went on without, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Photo:
    """A usable photo.

    Attributes:
        fingerprint: SHA-256 of its pixels.
        digest: SHA-256 of all that is known of it.
        pixels: (S, S, 3) uint8; None: beyond the bound, decoded again.
        masks: anomaly type -> (S * S / 8,) uint8, packed; None: beyond the bound.
    """

    image: LabelledImage
    fingerprint: bytes
    digest: bytes
    pixels: NDArray[np.uint8] | None
    masks: Mapping[str, NDArray[np.uint8]] | None


class Dataset:
    """Distinct readable photos in the order given.

    Attributes:
        images: the photos, without copies, damaged files and contradictions.
        skipped: those left out, with reasons.
        digest: SHA-256 over the names, pixels, verdicts, types and masks of `images`.
        input_px: side of the pixels, as the model takes them.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        progress: Callable[[float], None] | None = None,
        *,
        input_px: int = INPUT_PX,
    ) -> None:
        """Decode every photo and mask once; what cannot be used goes to `skipped`.

        Of photos with equal pixels the first counts. Where one of them is called normal and one
        anomalous, none does: nobody knows which is right.
        """
        most_cached = MAX_CACHED_IMAGES * INPUT_PX**2 // input_px**2
        left_out: list[tuple[LabelledImage, str]] = []
        by_pixels: dict[bytes, list[_Photo]] = {}
        thumbnails: dict[bytes, NDArray[np.float32]] = {}
        for done, image in enumerate(images, start=1):
            try:
                photo, thumbnail = _read(image, input_px, is_kept=len(by_pixels) < most_cached)
                by_pixels.setdefault(photo.fingerprint, []).append(photo)
                thumbnails[photo.fingerprint] = thumbnail
            except (UnreadableImage, ImageTooLarge, BadRequest) as error:
                left_out.append((image, error.message))
            except OSError as error:
                left_out.append((image, f"The file cannot be read: {error.strerror}."))
            if progress:
                progress(done / len(images))
        kept = []
        for equal in by_pixels.values():
            is_contradicted = len({one.image.label for one in equal}) > 1
            if not is_contradicted:
                kept.append(equal[0])
            left_out += [
                (one.image, _contradiction(equal) if is_contradicted else _copy(equal[0]))
                for one in equal[0 if is_contradicted else 1 :]
            ]
        self.input_px = input_px
        self._take(kept, left_out, Thumbnails([thumbnails[one.fingerprint] for one in kept]))

    def _take(
        self,
        photos: Sequence[_Photo],
        left_out: Sequence[tuple[LabelledImage, str]],
        thumbnails: Thumbnails,
    ) -> None:
        self.images = tuple(one.image for one in photos)
        self.skipped = tuple(SkippedImage(image.name, reason) for image, reason in left_out)
        self.digest = hashlib.sha256(b"".join(one.digest for one in photos)).hexdigest()
        self._photos, self._left_out = tuple(photos), tuple(left_out)
        self._thumbnails = thumbnails

    def where(self, is_wanted: Callable[[LabelledImage], bool]) -> Dataset:
        """Return some of the photos, and of those left out, without reading anything again."""
        part = Dataset.__new__(Dataset)
        part.input_px = self.input_px
        wanted = [index for index, image in enumerate(self.images) if is_wanted(image)]
        part._take(
            [self._photos[index] for index in wanted],
            [one for one in self._left_out if is_wanted(one[0])],
            Thumbnails(self._thumbnails.fine[wanted]),
        )
        return part

    def said_otherwise(self, images: Sequence[LabelledImage]) -> Dataset:
        """Return the same photos, of which other things are said; as many, in the same order."""
        part = self.where(lambda _image: True)
        part.images = tuple(images)
        part._photos = tuple(
            replace(photo, image=image) for photo, image in zip(self._photos, images, strict=True)
        )
        return part

    def __len__(self) -> int:
        """Return the number of usable photos."""
        return len(self.images)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return (S, S, 3) uint8 RGB of photo `index`, S = `input_px`."""
        kept = self._photos[index].pixels
        if kept is not None:
            return kept
        return decode(self.images[index].read(), (self.input_px, self.input_px)).pixels

    def masks(self, index: int) -> dict[str, NDArray[np.bool_]]:
        """Return anomaly type -> (S, S) bool of photo `index`; see `services.vision.masks.on_grid`."""
        photo, side = self._photos[index], self.input_px
        packed = photo.masks if photo.masks is not None else _packed_masks(photo.image, side)
        return {
            name: np.unpackbits(bits, count=side * side).reshape(side, side).astype(np.bool_)
            for name, bits in packed.items()
        }

    def batches(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of the first photo, (N, S, S, 3) uint8) with N <= 8, in order."""
        for start in range(0, len(self), BATCH_IMAGES):
            stop = min(start + BATCH_IMAGES, len(self))
            yield start, np.stack([self.pixels(index) for index in range(start, stop)])

    def groups(self) -> NDArray[np.int32]:
        """Return (n,) int32: photos with equal numbers show one object and are held out together.

        Cross-fitting that tests a photo against its own twin makes a promise too good.
        """
        return self._thumbnails.groups()

    def near_duplicates(self) -> tuple[str, ...]:
        """Return a sentence if photos show nearly the same, none otherwise."""
        numbers = self.groups()
        first = {int(number): index for index, number in reversed(list(enumerate(numbers)))}
        twins = {
            index: first[int(number)] for index, number in enumerate(numbers) if first[int(number)] != index
        }
        return self._told(twins, self, "show nearly the same as another; they are held out together")

    def near_duplicates_in(self, training: Dataset) -> tuple[str, ...]:
        """Return a sentence if photos of this test set show nearly the same as some of `training`."""
        twins = self._thumbnails.twins_in(training._thumbnails)
        return self._told(twins, training, "of the test show nearly the same as one of the training")

    def _told(self, twins: Mapping[int, int], others: Dataset, what: str) -> tuple[str, ...]:
        if not twins:
            return ()
        pairs = [(self.images[one].name, others.images[other].name) for one, other in twins.items()]
        named = ", ".join(f"{one} (as {other})" for one, other in pairs[:_NAMED_TWINS])
        more = f" and {len(pairs) - _NAMED_TWINS} more" if len(pairs) > _NAMED_TWINS else ""
        return (f"{len(pairs)} of {len(self)} photos {what}: {named}{more}.",)


def _read(image: LabelledImage, input_px: int, *, is_kept: bool) -> tuple[_Photo, NDArray[np.float32]]:
    """Return a photo and its thumbnail, or raise why it cannot be used."""
    seen = decode(image.read(), (input_px, input_px))
    if min(seen.width_px, seen.height_px) < MIN_SIDE_PX:
        message = (
            f"The photo has only {seen.width_px} x {seen.height_px} pixels; "
            f"at least {MIN_SIDE_PX} on each side are needed to see anything."
        )
        raise BadRequest(message)
    masks = _packed(image, (seen.width_px, seen.height_px), input_px)
    fingerprint = hashlib.sha256(seen.pixels.tobytes()).digest()
    if len(masks) < len(image.masks):
        image = replace(image, masks={name: image.masks[name] for name in masks})
    photo = _Photo(
        image=image,
        fingerprint=fingerprint,
        digest=_digest_of(image, fingerprint, masks),
        pixels=seen.pixels if is_kept else None,
        masks=masks if is_kept else None,
    )
    return photo, thumbnail_of(seen.pixels)


def _packed_masks(image: LabelledImage, side: int) -> dict[str, NDArray[np.uint8]]:
    """Return the packed masks of a photo that has to be read again for its size."""
    if not image.masks:
        return {}
    seen = decode(image.read(), (side, side))
    return _packed(image, (seen.width_px, seen.height_px), side)


def _packed(image: LabelledImage, size_px: tuple[int, int], side: int) -> dict[str, NDArray[np.uint8]]:
    try:
        marked = image.read_masks(size_px)
    except (UnreadableImage, ImageTooLarge) as error:
        raise BadRequest(f"A mask cannot be read: {error.message}") from error
    return {name: np.packbits(on_grid(mask, side)) for name, mask in marked.items()}


def _mask_bytes(source: Path | bytes, name: str) -> bytes:
    try:
        return source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise BadRequest(f"The mask of {name} cannot be read: {error.strerror}.") from error


def _copy(first: _Photo) -> str:
    return f"A copy of {first.image.name}; it counts once."


def _contradiction(equal: Sequence[_Photo]) -> str:
    """Name the photos of equal pixels that were called both normal and anomalous."""
    said = ", ".join(f"{one.image.name} is called {one.image.label}" for one in equal[:_NAMED_TWINS])
    return f"Equal pixels have contradictory labels: {said}. None of them counts until one label is right."


def _digest_of(image: LabelledImage, fingerprint: bytes, masks: Mapping[str, NDArray[np.uint8]]) -> bytes:
    said = "\x1f".join([image.name, image.label, *image.all_types])
    digest = hashlib.sha256(said.encode() + b"\x00" + fingerprint)
    for name in sorted(masks):
        digest.update(name.encode() + b"\x00" + masks[name].tobytes())
    return digest.digest()
