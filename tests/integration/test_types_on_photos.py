"""Masks and named types on real photos: `$INSPECTION_DATA` or `../shared/data`; skipped where absent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.domain.label import Verdict
from services.trainer.backbones.efficientnet import load_backbone
from services.trainer.dataset import ColouredMask, Dataset, LabelledImage, MaskSource
from services.trainer.evaluation.by_type import TypeMasks
from services.trainer.evaluation.outcome import Outcome
from services.trainer.evaluation.report import Evaluation, evaluate
from services.trainer.families.protocol import Budget, FitData
from services.trainer.families.supervised import SupervisedFamily
from services.trainer.features import FeatureExtractor, Features
from services.trainer.named_types import named_types
from services.vision.masks import marked_pixels, size_of
from services.vision.regions import interpolation_matrix

pytestmark = pytest.mark.photos

_COOKIES = "aws-lookout-cookies/dataset-files"
_GREEN = "#23A436"
Photos = tuple[list[LabelledImage], list[LabelledImage]]


def labelled(
    folder: Path, pattern: str, masks_of: Callable[[Path], dict[str, MaskSource]] | None = None
) -> list[LabelledImage]:
    """Return photos, anomalous where there are masks."""
    label = Verdict.NORMAL if masks_of is None else Verdict.ANOMALY
    return [
        LabelledImage(path, path.name, label, masks=masks_of(path) if masks_of else {})
        for path in sorted(folder.glob(pattern))
    ]


def cookies(data: Path) -> Photos:
    folder, masks = data / _COOKIES / "training-images", data / _COOKIES / "mask-images"
    return labelled(folder, "normal*"), labelled(
        folder, "anomaly*", lambda path: {"cracked": ColouredMask(masks / f"{path.stem}.png", _GREEN)}
    )


def bearings(data: Path) -> Photos:
    folder = data / "piped-paper" / "PA_BRG01_RL"
    return labelled(folder / "normal", "*.png"), labelled(
        folder / "defect", "*.png", lambda path: {"spot": folder / "mask" / path.name.replace("_D_", "_GT_")}
    )


def ball_screw(data: Path) -> Photos:
    folder = data / "bsdata-ballscrew"
    return labelled(folder / "no-label", "*"), labelled(
        folder / "pitting", "*", lambda path: {"pitting": folder / "mask" / f"{path.stem}.png"}
    )


def test_cookie_masks_are_what_is_at_least_half_opaque(data: Path) -> None:
    masks = sorted((data / _COOKIES / "mask-images").glob("*.png"))
    assert len(masks) == 32
    for path in masks:
        drawn = path.read_bytes()
        with Image.open(path) as image:
            opaque = np.asarray(image.convert("RGBA"))[:, :, 3] >= 128
        for colour in (None, _GREEN):
            assert (marked_pixels(drawn, size_of(drawn), colour) == opaque).all()


@pytest.mark.parametrize(
    ("folder", "count"),
    [("piped-paper/PA_BRG01_RL", 48), ("piped-paper/PA_ZPB01_RL", 12), ("bsdata-ballscrew", 9)],
)
def test_defects_are_the_smaller_part_whatever_their_colour(data: Path, folder: str, count: int) -> None:
    masks = [path.read_bytes() for path in sorted((data / folder / "mask").glob("*.png"))]
    shares = [float(marked_pixels(one, size_of(one)).mean()) for one in masks]
    assert len(shares) == count
    assert 0 < min(shares) <= max(shares) < 0.1


def test_cracked_cookies_are_named_and_marked_by_what_did_not_see_them(data: Path) -> None:
    report = cross_fitted(*cookies(data))
    (cracked,) = report.types
    assert cracked.images == 32
    assert cracked.f1 is not None
    assert cracked.f1 >= 0.9
    assert report.metrics["mean_iou.cracked"] >= 0.55


@pytest.mark.parametrize(("photos", "f1", "iou"), [(bearings, 0.9, 0.5), (ball_screw, 0.8, 0.4)])
def test_the_same_holds_for_other_defects(
    data: Path, photos: Callable[[Path], Photos], f1: float, iou: float
) -> None:
    report = cross_fitted(*photos(data))
    (row,) = report.types
    assert (row.f1 or 0) >= f1
    assert (row.mean_iou or 0) >= iou


def cross_fitted(normals: Sequence[LabelledImage], anomalies: Sequence[LabelledImage]) -> Evaluation:
    """Return what is said of photos by networks of the other four folds, at 224 x 224."""
    data = FitData(
        good := Dataset(normals), good.groups(), Dataset(anomalies), FeatureExtractor(load_backbone())
    )
    candidate = SupervisedFamily().fit(data, Budget(), 0, lambda _done: None)
    head = candidate.type_head
    assert head is not None
    (known,) = named_types(head, data)
    probabilities = [
        enlarged(head.probabilities(features, groups.tolist()))
        for photos, all_groups in ((data.normals, data.groups), (data.anomalies, data.anomaly_groups))
        for features, groups in batches(data, photos, all_groups)
    ]
    found = np.concatenate(probabilities) >= known.threshold  # (n, 1, 224, 224)
    drawn = np.zeros_like(found)
    for index in range(len(data.anomalies)):
        drawn[len(data.normals) + index, 0] = data.anomalies.masks(index)[known.name]
    images = (*data.normals.images, *data.anomalies.images)
    outcomes = [
        Outcome(
            one.name,
            one.label,
            score=float(is_found),
            verdict=Verdict.ANOMALY if is_found else Verdict.NORMAL,
            types=one.all_types,
            found_types=(known.name,) if is_found else (),
        )
        for one, is_found in zip(images, [bool(one.any()) for one in found], strict=True)
    ]
    return evaluate(outcomes, type_masks=TypeMasks((known.name,), drawn, found))


def batches(
    data: FitData, photos: Dataset, groups: NDArray[np.int32]
) -> list[tuple[Features, NDArray[np.int32]]]:
    return [
        (features, groups[start : start + len(features["pixels"])])
        for start, features in data.extractor.stream(photos)
    ]


def enlarged(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    up = interpolation_matrix(planes.shape[-1], 224).astype(np.float32)
    return np.asarray(up @ planes @ up.T, np.float32)
