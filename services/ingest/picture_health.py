"""Whether a camera's pictures are what they should be: dark, frozen or out of focus (arrow 1).

Looks at small grey copies, about one a second (5 ms CPU each for 1080p JPEG). Judges the camera, not
the parts in front of it, and changes no frame.
"""

from __future__ import annotations

import io
from collections import deque
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.domain.camera import CameraState
from services.vision.picture import laplacian_variance

# Longest side of the copy. At 256 px a blur of 3 px in a picture of 2,645 px left 0.28 of the sharpness,
# within reach of good pictures (0.38 and more); at 512 px it leaves 0.06.
_COPY_PX = 512
# Black with a noisy sensor is below both; of 256 levels. One lit part in a hundred makes it a picture.
DARK_MEAN_LEVELS, DARK_TOP_LEVELS = 12.0, 30.0
# A still scene with a sensor's noise (1 level, JPEG quality 90) changes 41 pixels of 100 from one copy of
# a 1080p picture to the next, half a level 31, and smaller pictures more; a repeated picture changes none.
FROZEN_CHANGED_RATIO = 0.001
# Of the camera's own median. Good photos of twelve real sets had 0.38 and more, shown in order; blurred
# by 3 px or more 0.06 and less (128 to 2,645 px wide).
BLURRED_BELOW_RATIO, SHARP_ABOVE_RATIO = 0.2, 0.3
# A belt that runs empty has as little detail as a blurred part, but loses its large shapes, too.
_SAME_SCENE_RATIO = 0.4
# Standard deviation of a picture with nothing in it: covered, or overexposed throughout.
_FLAT_LEVELS = 2.0
# So many looks in a row to enter a state and to leave it: one part that passes is no fault.
_LOOKS_IN_A_ROW = 3
# A minute of looks is the camera's own reference, and ten are the fewest to judge by.
_REFERENCE_LOOKS, _MIN_REFERENCE_LOOKS = 60, 10


class PictureHealth:
    """Judges one camera's pictures, look after look; used by one thread."""

    def __init__(self, *, watches_frozen: bool, frozen_after_s: float = 10.0) -> None:
        """Begin without a reference: out of focus is known after ten good looks.

        Args:
            watches_frozen: whether equal pictures are a fault; not for folders and pushes.
            frozen_after_s: how long they are equal before they are one.
        """
        self._watches_frozen, self._frozen_after_s = watches_frozen, frozen_after_s
        self._still: NDArray[np.int16] | None = None
        self._still_since_s = 0.0
        self._dark, self._blurred = _Latch(), _Latch()
        # Sharpness and large-scale contrast of good looks.
        self._good: deque[tuple[float, float]] = deque(maxlen=_REFERENCE_LOOKS)

    def look(self, image: bytes, now_s: float) -> CameraState | None:
        """Return the state that the camera's picture is in.

        Args:
            image: encoded; one that cannot be read is the stream's to quarantine, and tells nothing here.
            now_s: monotonic seconds.

        Returns:
            DARK; FROZEN; BLURRED, also for a picture with nothing in it; None: fine or not known.
        """
        copy = _grey_copy(image)
        if copy is None:
            return None
        is_frozen = self._watches_frozen and self._is_still(copy, now_s)
        is_black = copy.mean() < DARK_MEAN_LEVELS and np.quantile(copy, 0.99) < DARK_TOP_LEVELS
        if self._dark.update(bool(is_black)):
            return CameraState.DARK
        if is_frozen:
            return CameraState.FROZEN
        if not is_black and self._is_blurred(copy):
            return CameraState.BLURRED
        return None

    def _is_still(self, copy: NDArray[np.int16], now_s: float) -> bool:
        """Tell whether nothing has changed for long enough; compares with the first of equal copies."""
        before = self._still
        if before is None or before.shape != copy.shape or np.mean(before != copy) > FROZEN_CHANGED_RATIO:
            self._still, self._still_since_s = copy, now_s
        return now_s - self._still_since_s >= self._frozen_after_s

    def _is_blurred(self, copy: NDArray[np.int16]) -> bool:
        sharpness, contrast = laplacian_variance(copy), _contrast(copy)
        if len(self._good) < _MIN_REFERENCE_LOOKS:
            self._good.append((sharpness, contrast))
            return False
        usual = median(good[0] for good in self._good)
        is_same_scene = contrast > _SAME_SCENE_RATIO * median(good[1] for good in self._good)
        bound = SHARP_ABOVE_RATIO if self._blurred.is_on else BLURRED_BELOW_RATIO
        looks_blurred = sharpness < bound * usual and (is_same_scene or contrast < _FLAT_LEVELS)
        if not looks_blurred:
            self._good.append((sharpness, contrast))
        return self._blurred.update(looks_blurred)


class _Latch:
    """On and off only after several looks in a row say so."""

    def __init__(self) -> None:
        self.is_on = False
        self._against = 0

    def update(self, says_on: bool) -> bool:
        self._against = self._against + 1 if says_on != self.is_on else 0
        if self._against >= _LOOKS_IN_A_ROW:
            self.is_on, self._against = says_on, 0
        return self.is_on


def _grey_copy(image: bytes) -> NDArray[np.int16] | None:
    """Return a small grey copy, (H, W), 0-255; None: unreadable."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            # libjpeg scales by 1/2, 1/4, 1/8 while it decodes, and leaves the colours out.
            opened.draft("L", (_COPY_PX, _COPY_PX))
            grey = opened.convert("L")
            grey.thumbnail((_COPY_PX, _COPY_PX), Image.Resampling.BOX)
            return np.asarray(grey, dtype=np.int16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _contrast(copy: NDArray[np.int16]) -> float:
    """Return the standard deviation of means of 8 x 8 pixels: shapes that a blur leaves, in grey levels."""
    height, width = (max(side // 8, 1) for side in copy.shape)
    blocks = copy[: height * 8, : width * 8]
    if blocks.shape != (height * 8, width * 8):
        return float(copy.std())
    # (H/8, 8, W/8, 8) -> (H/8, W/8)
    return float(blocks.reshape(height, 8, width, 8).mean(axis=(1, 3), dtype=np.float32).std())
