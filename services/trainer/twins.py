"""Which photos show one object twice: nearly equal ones, found among thousands in seconds (arrow 6).

Photos are compared by small thumbnails, root mean square. Twins are photos much nearer to each other than
photos usually are, so a camera that stands still over different parts, all equally near, has no twins.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_PX = 28
_COARSE_PX = 7
# Photos nearer to each other than this share of the usual distance show one object twice.
_SAME_OBJECT_RATIO = 0.2
# Photos from which the usual distance is taken, evenly spread.
_USUAL_OF = 512
_PHOTOS_AT_ONCE = 256
# float32 sums of some hundred squares are wrong by less than this share of the largest.
_ROUNDING_RATIO = 1e-4


class Thumbnails:
    """Small pictures of n photos.

    Attributes:
        fine: (n, 28 * 28 * 3) float32 block means.
    """

    def __init__(self, fine: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> None:
        """Keep what `thumbnail_of` made of each photo."""
        self.fine = np.array(fine, np.float32).reshape(len(fine), 3 * THUMBNAIL_PX**2)
        block = THUMBNAIL_PX // _COARSE_PX
        blocks = self.fine.reshape(len(fine), 3, _COARSE_PX, block, _COARSE_PX, block)
        # A mean of differences is at most their root mean square, so coarse thumbnails are never farther
        # apart than fine ones.
        self._coarse = blocks.mean(axis=(3, 5)).reshape(len(fine), 3 * _COARSE_PX**2)

    def groups(self) -> NDArray[np.int32]:
        """Return (n,) int32: photos with equal numbers show one object."""
        numbers = np.arange(len(self.fine), dtype=np.int32)
        limit = self.limit()
        leaders: list[int] = []
        for start in range(0, len(self.fine), _PHOTOS_AT_ONCE):
            block = np.arange(start, min(start + _PHOTOS_AT_ONCE, len(self.fine)))
            # Leaders that this block adds are among itself.
            known = np.array([*leaders, *block], np.int64)
            is_near = self._may_be_near(block, self._coarse[known], limit)
            places = {int(leader): number for number, leader in enumerate(leaders)}
            for row, one in enumerate(block.tolist()):
                candidates = [int(other) for other in known[is_near[row]] if int(other) in places]
                # Joining the first leader, not the nearest photo: a slow drift must not chain
                # everything into one group. By the triangle inequality there are always two groups.
                near = np.flatnonzero(self._distances(one, self.fine[candidates]) < limit)
                if len(near):
                    numbers[one] = places[candidates[int(near[0])]]
                else:
                    numbers[one] = places[one] = len(leaders)
                    leaders.append(one)
        return numbers

    def twins_in(self, others: Thumbnails) -> dict[int, int]:
        """Return photo -> the first photo of `others` that shows the same; `others` say how near that is."""
        limit = others.limit()
        found: dict[int, int] = {}
        for start in range(0, len(self.fine), _PHOTOS_AT_ONCE):
            block = np.arange(start, min(start + _PHOTOS_AT_ONCE, len(self.fine)))
            is_near = self._may_be_near(block, others._coarse, limit)
            for row, one in enumerate(block.tolist()):
                candidates = np.flatnonzero(is_near[row])
                near = np.flatnonzero(self._distances(one, others.fine[candidates]) < limit)
                if len(near):
                    found[one] = int(candidates[near[0]])
        return found

    def limit(self) -> float:
        """Return the distance below which photos are twins.

        A share of the usual distance: the median, over photos, of that to their (n / 4)-th neighbour. Of
        fewer than three photos nothing is usual, and none are twins.
        """
        count = len(self.fine)
        if count < 3:
            return 0.0
        rank = max(2, count // 4)
        some = np.unique(np.linspace(0, count - 1, min(count, _USUAL_OF)).astype(int))
        squares = _squares(self.fine[some], self.fine)
        usual = np.sqrt(np.maximum(np.partition(squares, rank, axis=1)[:, rank], 0))
        return _SAME_OBJECT_RATIO * float(np.median(usual))

    def _distances(self, index: int, others: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (k,) root mean square differences of photo `index` to (k, D) fine thumbnails."""
        difference = others - self.fine[index]
        return np.asarray(np.sqrt(np.mean(difference * difference, axis=1)), np.float32)

    def _may_be_near(
        self, block: NDArray[np.int64], others: NDArray[np.float32], limit: float
    ) -> NDArray[np.bool_]:
        """Return (b, k): which of (k, 147) coarse thumbnails are not too far from those of the block."""
        own = self._coarse[block]
        # For rounding: what is a little too far by the coarse look is looked at closely.
        slack = _ROUNDING_RATIO * max(float(np.square(own - own.mean(axis=0)).max()), 1.0)
        return np.asarray(_squares(own, others) <= limit**2 + slack)


def _squares(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (a, b) mean square differences of (a, D) and (b, D), as one matrix product."""
    # What all have in common would only add to the rounding.
    centre = some.mean(axis=0)
    own, other = some - centre, others - centre
    sides = np.square(own).sum(axis=1)[:, None] + np.square(other).sum(axis=1)
    return np.asarray((sides - 2 * (own @ other.T)) / own.shape[1], np.float32)


def thumbnail_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (3 * 28 * 28,) float32 block means; cells are shared where 28 does not divide the side."""
    means = _block_means(pixels.shape[0])
    channels = pixels.transpose(2, 0, 1).astype(np.float32)
    return np.asarray((means @ channels @ means.T).ravel(), np.float32)


@lru_cache(maxsize=8)
def _block_means(length: int) -> NDArray[np.float32]:
    """Return (28, length): each row the share of every pixel in one of 28 equal stretches."""
    ends = np.arange(THUMBNAIL_PX + 1) * length / THUMBNAIL_PX
    covered = np.clip(ends[:, None] - np.arange(length), 0, 1)  # (29, length): share before each end
    return np.asarray(np.diff(covered, axis=0) * THUMBNAIL_PX / length, np.float32)
