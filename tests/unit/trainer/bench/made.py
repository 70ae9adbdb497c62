"""A set of generated pictures, and records of trials, for tests of the bench."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image

from services.domain.label import Split, Verdict
from services.trainer.bench.protocols import Protocol
from services.trainer.bench.sets import BenchSet
from services.trainer.bench.trial import Trial
from services.trainer.dataset import LabelledImage

TRIAL = Trial("plates", Protocol.NORMALS_ONLY, "auto", "", 0)


def photo(name: str, label: Verdict = Verdict.NORMAL, *, is_masked: bool = False) -> LabelledImage:
    """Return a photo without pixels."""
    masks = {"scratch": b""} if is_masked else {}
    return LabelledImage(b"", name, label, masks=masks, split=Split.TRAIN)


def bench_set(*, anomalies: int = 10, unmasked: int = 3, photos_of_object: int = 1) -> BenchSet:
    """Return 8 normals that train, 6 held back, and anomalies with and without masks."""
    drawn = [photo(f"bad-{number:02d}", Verdict.ANOMALY, is_masked=True) for number in range(anomalies)]
    objects = {one.name: f"object-{at // photos_of_object}" for at, one in enumerate(drawn)}
    return BenchSet(
        "plates",
        train=tuple(photo(f"good-{number}") for number in range(8)),
        normals=tuple(photo(f"held-{number}") for number in range(6)),
        anomalies=(*drawn, *(photo(f"plain-{number}", Verdict.ANOMALY) for number in range(unmasked))),
        objects=objects if photos_of_object > 1 else {},
    )


def png(level: int, side_px: int = 32) -> bytes:
    """Return a grey PNG."""
    file = BytesIO()
    Image.new("L", (side_px, side_px), level).save(file, "PNG")
    return file.getvalue()


def record(trial: Trial = TRIAL, **metrics: float) -> dict[str, Any]:
    """Return what a trial came to."""
    return {
        **{name: getattr(trial, name) for name in Trial.__slots__},
        "photos": "8; 6 + 10",
        "metrics": metrics or {"image_auroc": 0.9},
        "intervals": {"recall_ratio": [0.5, 1.0]} if "recall_ratio" in metrics else {},
        "types": [],
        "cost": {"fit_s": 2.5, "peak_rss_bytes": 2**29, "ms": 5.0, "serving_ms": 2.5, "file_bytes": 2**22},
        "chosen": ["memory"],
        "serving": ["int8"],
        "took_s": 3.0,
    }


def with_seed(seed: int) -> Trial:
    """Return the trial with another seed."""
    return replace(TRIAL, seed=seed)
