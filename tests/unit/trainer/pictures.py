"""Seeded pictures of a part, small enough to fit a detector in a second."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from services.domain.label import Verdict
from services.trainer.dataset import Dataset, LabelledImage
from services.trainer.families.protocol import FitData
from services.trainer.features import FeatureExtractor


def picture(seed: int, *, is_bad: bool = False) -> bytes:
    """Return a PNG of a brushed plate with four holes; a bad one has a scratch."""
    rng = np.random.default_rng(seed)
    brushed = 140 + rng.normal(0, 12, (160, 1, 1)) + rng.normal(0, 4, (160, 160, 3))
    image = Image.fromarray(np.clip(brushed, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    shift = rng.integers(-2, 3, 2)
    for x in (40, 120):
        for y in (40, 120):
            left, top = int(x + shift[0]), int(y + shift[1])
            pen.ellipse((left - 12, top - 12, left + 12, top + 12), fill=(40, 40, 45))
    if is_bad:
        x, y = (int(value) for value in rng.integers(60, 90, 2))
        pen.line((x, y, x + 30, y + 14), fill=(235, 230, 225), width=4)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pictures(count: int, *, first_seed: int = 0, is_bad: bool = False) -> list[LabelledImage]:
    """Return labelled pictures with consecutive seeds."""
    label = Verdict.ANOMALY if is_bad else Verdict.NORMAL
    seeds = range(first_seed, first_seed + count)
    return [LabelledImage(picture(one, is_bad=is_bad), f"{label}-{one}.png", label) for one in seeds]


def fit_data(count: int, extractor: FeatureExtractor, *, bad: int = 0) -> FitData:
    """Return what families learn from: good pictures, each a group of its own, and bad ones."""
    normals, anomalies = Dataset(pictures(count)), Dataset(pictures(bad, is_bad=True))
    return FitData(normals, np.arange(count, dtype=np.int32), anomalies, extractor)
