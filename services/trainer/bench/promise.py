"""Whether the promised false-reject rate is kept, on thousands of fresh normal pictures (arrow 6).

The real sets hold back a dozen normals, which prove nothing. Whoever calls brings pictures of good parts
without end; a few train, thousands that no fit ever saw are judged. Draws no pictures itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.domain.model_version import FitOptions
from services.trainer.dataset import LabelledImage
from services.trainer.evaluation.image import share_from
from services.trainer.fit import Recipe, fit_model
from services.vision.decode import decode
from services.vision.runtime import OnnxModel
from services.vision.verdict import input_size_px

_BATCH_IMAGES = 8

# Encoded picture by its number, from 0; each number is another part.
Pictures = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class PromisePlan:
    """What is fitted and how much is judged.

    Attributes:
        promises: false-reject ratios to promise (0-1).
        fit_photos: how many photos fits learn from.
        fresh: good parts that each fit judges.
        bad: bad parts that each fit judges: a promise is easily kept by finding nothing.
    """

    promises: tuple[float, ...] = (0.005, 0.02, 0.05)
    fit_photos: tuple[int, ...] = (10, 30, 100)
    fresh: int = 2000
    bad: int = 200


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of one promise of one fit.

    Attributes:
        line: what was pictured.
        promise: the ratio promised (0-1).
        fit_photos: photos that were learnt from.
        fresh: good parts judged.
        false_reject_ratio: of them.
        recall_ratio: of bad parts.
    """

    line: str
    seed: int
    promise: float
    fit_photos: int
    fresh: int
    false_reject_ratio: float
    recall_ratio: float

    @property
    def key(self) -> tuple[int, int, float]:
        """What tells it from others: seed, photos, promise."""
        return self.seed, self.fit_photos, self.promise


def measure(
    line: str,
    seed: int,
    good: Pictures,
    bad: Pictures,
    plan: PromisePlan,
    *,
    known: Collection[tuple[int, int, float]] = (),
    recipe: Recipe | None = None,
) -> Iterator[Kept]:
    """Fit for each promise and number of photos, judge fresh parts, and yield what came of it.

    Args:
        line: name of what is pictured.
        seed: of the fits.
        good: good parts.
        bad: bad parts of the same line.
        plan: what to do.
        known: keys of what was measured before and is not measured again.
        recipe: of the fits.
    """
    first = max(plan.fit_photos)  # what trains in any fit is fresh in none
    size_px: tuple[int, int] | None = None
    fresh = spoiled = np.zeros(0, np.uint8)
    for count in plan.fit_photos:
        photos: list[LabelledImage] = []
        for promise in plan.promises:
            if (seed, count, promise) in known:
                continue
            photos = photos or [LabelledImage(good(number), f"{number}.jpg") for number in range(count)]
            with tempfile.TemporaryDirectory(prefix="loupe-promise-") as folder:
                options = FitOptions(max_false_reject_ratio=promise, seed=seed)
                fitted = fit_model(
                    photos,
                    project="promise",
                    version="v",
                    out_dir=Path(folder),
                    options=options,
                    recipe=recipe,
                )
                model = OnnxModel(fitted.folder, threads=2)
            if input_size_px(model.manifest) != size_px:
                size_px = input_size_px(model.manifest)
                fresh = _pixels(good, range(first, first + plan.fresh), size_px)
                spoiled = _pixels(bad, range(plan.bad), size_px)
            threshold = model.manifest.calibration.threshold
            yield Kept(
                line=line,
                seed=seed,
                promise=promise,
                fit_photos=count,
                fresh=plan.fresh,
                false_reject_ratio=share_from(_scores(model, fresh), threshold),
                recall_ratio=share_from(_scores(model, spoiled), threshold),
            )


def _pixels(pictures: Pictures, numbers: range, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return (n, H, W, 3): 2,000 of them at 224 px are 300 MB, and drawing them again takes longest."""
    pixels = np.empty((len(numbers), size_px[1], size_px[0], 3), np.uint8)
    for at, number in enumerate(numbers):
        pixels[at] = decode(pictures(number), size_px).pixels
    return pixels


def _scores(model: OnnxModel, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (n,) scores."""
    starts = range(0, len(pixels), _BATCH_IMAGES)
    parts = [model.infer(pixels[start : start + _BATCH_IMAGES]).scores for start in starts]
    return np.concatenate([np.zeros(0, np.float32), *parts])
