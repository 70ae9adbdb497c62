"""The line: frames of parts on a belt, each a function of (seed, index) alone (arrow 1).

Everything dear is drawn once and kept: blanks by machining marks, belt, noise. A frame is then one
turn of a blank, one paste, one light. Does not pace, number or send frames.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from services.domain.errors import BadRequest
from services.ingest.synthetic.defects import DAMAGES, DEFECTS, MISSING, Damaged, forgotten
from services.ingest.synthetic.parts import KINDS, Blank, Kind, draw_blank
from services.ingest.synthetic.surface import belt

MIN_SIDE_PX, MAX_SIDE_PX = 128, 2048
JPEG_QUALITY = 90
PARTS_PER_LOT = 250
# Enough that no detector learns the marks of single parts by heart; each costs about 50 ms once.
_BLANKS = 12
_PART_SHARE = 0.86  # of the frame's shorter side
_SHADOW_SHARE, _SHADOW_RGB = 0.6, (8, 9, 10)  # what the part takes from the belt's light

# First words of the seeds of independent random streams.
_STREAM_LOOK, _STREAM_BLANK, _STREAM_PART = 1, 2, 3


@dataclass(frozen=True)
class SyntheticPart:
    """One frame of the line with its ground truth.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W) bool, pixels that the defect changed; all False for a normal part.
        defect: one of `DEFECTS`, None for a normal part.
        part_id: kind and running number.
        lot_id: the lot of the part.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    defect: str | None
    part_id: str
    lot_id: str

    @property
    def label(self) -> Literal["normal", "anomaly"]:
        """The truth in the words of reports and folders."""
        return "normal" if self.defect is None else "anomaly"

    def jpeg(self) -> bytes:
        """Return the image as JPEG."""
        buffer = io.BytesIO()
        Image.fromarray(self.image).save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()


class SyntheticLine:
    """A line that makes one kind of part; calls are thread-safe and in any order."""

    def __init__(
        self,
        seed: int,
        size_px: tuple[int, int] = (320, 320),
        anomaly_share: float = 0.2,
        kind: str | None = None,
    ) -> None:
        """Set the line up; takes some tens of milliseconds.

        Args:
            seed: of everything; also chooses the kind, unless told.
            size_px: (width, height) of frames.
            anomaly_share: share of parts with a defect (0-1).
            kind: one of `KINDS`.

        Raises:
            BadRequest: a size, share or kind that cannot be.
        """
        if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in size_px):
            raise BadRequest(f"A synthetic frame has {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels a side.")
        if not 0 <= anomaly_share <= 1:
            raise BadRequest(f"The share of anomalies is between 0 and 1, not {anomaly_share}.")
        if kind is not None and kind not in KINDS:
            raise BadRequest(f"No kind {kind!r}; the line makes {', '.join(KINDS)}.")
        self.seed, self.size_px, self.anomaly_share = abs(seed), size_px, anomaly_share
        self.kind: Kind = KINDS[kind] if kind else list(KINDS.values())[self.seed % len(KINDS)]
        self._side_px = round(min(size_px) * _PART_SHARE)
        look = np.random.default_rng([_STREAM_LOOK, self.seed])
        width_px, height_px = size_px
        belt_rgb = belt(look, width_px * 3, height_px, self.kind.belt_tint)
        self._belt = Image.fromarray(np.clip(belt_rgb, 0, 255).astype(np.uint8))
        self._noise = look.normal(0, 2.2, (height_px + 64, width_px + 64, 3)).astype(np.float32)
        self._blank = lru_cache(maxsize=4 * _BLANKS)(self._draw_blank)
        self._shadow = lru_cache(maxsize=_BLANKS)(self._draw_shadow)

    def defect_of(self, index: int) -> str | None:
        """Return the defect of part `index`, None if it is normal; draws nothing."""
        return self._defect(self._rng(index))

    def part(self, index: int) -> SyntheticPart:
        """Return frame `index` (from 0) with its ground truth."""
        rng = self._rng(index)
        defect = self._defect(rng)
        number = int(rng.integers(_BLANKS))
        damaged = self._damaged(number, defect, rng)
        image, mask = self._film(damaged, number, rng)
        lot = index // PARTS_PER_LOT
        return SyntheticPart(image, mask, defect, f"{self.kind.name}-{index:06d}", f"lot-{lot:04d}")

    def jpeg(self, index: int) -> bytes:
        """Return frame `index` as JPEG."""
        return self.part(index).jpeg()

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([_STREAM_PART, self.seed, index])

    def _defect(self, rng: np.random.Generator) -> str | None:
        """Draw the defect: the first two numbers of a part's stream, so that `defect_of` is cheap."""
        is_anomaly, which = rng.random() < self.anomaly_share, int(rng.integers(len(DEFECTS)))
        return DEFECTS[which] if is_anomaly else None

    def _draw_blank(self, number: int, missing: int) -> Blank:
        return draw_blank(self.kind, self._side_px, (_STREAM_BLANK, self.seed, number), missing)

    def _draw_shadow(self, number: int) -> Image.Image:
        """Return the soft shadow of a blank, an L image with margin of half a blank around."""
        margin_px = self._side_px // 4
        side_px = self._side_px + 2 * margin_px
        shadow = Image.new("L", (side_px, side_px), 0)
        shadow.paste(Image.fromarray(self._blank(number, -1).alpha), (margin_px, margin_px))
        soft = shadow.filter(ImageFilter.GaussianBlur(self._side_px * 0.025))
        return soft.point([round(level * _SHADOW_SHARE) for level in range(256)])

    def _damaged(self, number: int, defect: str | None, rng: np.random.Generator) -> Damaged:
        blank = self._blank(number, -1)
        if defect is None:
            return Damaged(blank, np.zeros(blank.alpha.shape, bool))
        if defect == MISSING and rng.random() < 0.6:
            return forgotten(blank, self._blank(number, int(rng.integers(self.kind.features))))
        return DAMAGES[defect](blank, rng)

    def _film(
        self, damaged: Damaged, number: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Lay the part on the belt, a little askew, and take its picture."""
        width_px, height_px = self.size_px
        angle_rad = np.deg2rad(rng.normal(0, 1.5))
        shift_px = rng.normal(0, 0.010, 2) * min(self.size_px)
        to_blank = _placement(self.size_px, self._side_px, angle_rad, shift_px)
        belt_x = int(rng.integers(2 * width_px))
        frame = self._belt.crop((belt_x, 0, belt_x + width_px, height_px))
        self._cast_shadow(frame, number, angle_rad, shift_px)
        alpha = _turn(Image.fromarray(damaged.blank.alpha), self.size_px, to_blank)
        frame.paste(_turn(Image.fromarray(damaged.blank.rgb), self.size_px, to_blank), mask=alpha)
        mask = np.zeros((height_px, width_px), bool)
        if damaged.mask.any():
            shape = Image.fromarray(damaged.mask.astype(np.uint8) * 255)
            mask = np.asarray(_turn(shape, self.size_px, to_blank)) > 127
        return self._expose(np.asarray(frame), rng), mask

    def _cast_shadow(
        self, frame: Image.Image, number: int, angle_rad: float, shift_px: NDArray[np.float64]
    ) -> None:
        """Darken the belt below and to the right of the part: the lamp stands top left."""
        shadow = self._shadow(number)
        cast_px = shift_px + self._side_px * np.array([0.022, 0.026])
        place = _placement(self.size_px, shadow.size[0], angle_rad, cast_px)
        # So soft that the nearest pixel is as good as a mix of four.
        frame.paste(_SHADOW_RGB, (0, 0), _turn(shadow, self.size_px, place, Image.Resampling.NEAREST))

    def _expose(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Apply the frame's light (level, fall-off, warmth) and the sensor's noise."""
        width_px, height_px = self.size_px
        corners = rng.normal(0, 0.02, (2, 2)) + rng.normal(1, 0.03)
        light = Image.fromarray(corners.astype(np.float32)).resize(
            (width_px, height_px), Image.Resampling.BILINEAR
        )
        warmth = 1 + rng.normal(0, 0.008) * np.array([1, 0, -1], np.float32)
        top, left = rng.integers(0, 64, 2)
        # (H, W, 3) = (H, W, 3) * (H, W, 1) + (H, W, 3)
        exposed = pixels * (np.asarray(light)[..., None] * warmth)
        exposed += self._noise[top : top + height_px, left : left + width_px]
        return np.asarray(np.clip(exposed, 0, 255, out=exposed), np.uint8)


def write_folder(line: SyntheticLine, folder: Path, normals: int, anomalies: int) -> None:
    """Write `normal/`, `anomaly/` (JPEG) and `masks/` (PNG, white is defect) of the line's first parts."""
    left = {"normal": normals, "anomaly": anomalies}
    if (anomalies and not line.anomaly_share) or (normals and line.anomaly_share == 1):
        raise BadRequest(f"A line with an anomaly share of {line.anomaly_share} makes no such parts.")
    for name in ("normal", "anomaly", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    index = -1
    while any(left.values()):
        index += 1
        label = "normal" if line.defect_of(index) is None else "anomaly"
        if not left[label]:
            continue
        left[label] -= 1
        part = line.part(index)
        name = part.part_id if part.defect is None else f"{part.part_id}-{part.defect}"
        (folder / label / f"{name}.jpg").write_bytes(part.jpeg())
        if part.defect is not None:
            Image.fromarray(part.mask).save(folder / "masks" / f"{name}.png")


Affine = tuple[float, float, float, float, float, float]


def _placement(
    size_px: tuple[int, int], side_px: int, angle_rad: float, shift_px: NDArray[np.float64]
) -> Affine:
    """Return the map from frame pixels to pixels of a square of `side_px`, centred, turned and shifted."""
    cos, sin = float(np.cos(angle_rad)), float(np.sin(angle_rad))
    x, y = size_px[0] / 2 + float(shift_px[0]), size_px[1] / 2 + float(shift_px[1])
    half = side_px / 2
    return (cos, sin, half - cos * x - sin * y, -sin, cos, half + sin * x - cos * y)


def _turn(
    image: Image.Image,
    size_px: tuple[int, int],
    place: Affine,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    return image.transform(size_px, Image.Transform.AFFINE, place, resampling)
