"""The detector on real photos: `$INSPECTION_DATA` or `../shared/data`; skipped where absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.domain.label import Verdict
from services.domain.model_version import FitOptions
from services.trainer.backbones.efficientnet import load_backbone
from services.trainer.dataset import LabelledImage
from services.trainer.evaluation.image import image_auroc, share_from
from services.trainer.fit import FittedModel, fit_model
from services.trainer.splits import split_normals
from services.vision.decode import decode
from services.vision.runtime import OnnxModel

pytestmark = pytest.mark.photos


@pytest.fixture(autouse=True)
def _backbone() -> None:
    load_backbone()  # fails with the line that mends it


def labelled(folder: Path, pattern: str, label: Verdict) -> list[LabelledImage]:
    return [
        LabelledImage(path, f"{path.parent.name}/{path.name}", label) for path in sorted(folder.glob(pattern))
    ]


def cookies(data: Path) -> list[LabelledImage]:
    folder = data / "aws-lookout-cookies"
    normal = labelled(folder, "**/*normal*.jpg", Verdict.NORMAL)
    return normal + labelled(folder, "**/*anomaly*.jpg", Verdict.ANOMALY)


def screws(data: Path) -> list[LabelledImage]:
    folder = data / "screws"
    normal = labelled(folder / "normal", "*.jpg", Verdict.NORMAL)
    return normal + labelled(folder / "missing", "*.jpg", Verdict.ANOMALY)


def bearings(data: Path) -> list[LabelledImage]:
    folder = data / "piped-paper" / "PA_BRG01_RL"
    normal = labelled(folder / "normal", "*.png", Verdict.NORMAL)
    return normal + labelled(folder / "defect", "*.png", Verdict.ANOMALY)


def scores_of(
    fitted: FittedModel, images: list[LabelledImage]
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    model = OnnxModel(fitted.folder, threads=2)
    parts = [
        model.infer(np.stack([decode(one.read()).pixels for one in images[start : start + 8]])).scores
        for start in range(0, len(images), 8)
    ]
    return np.concatenate(parts)


def tried(images: list[LabelledImage], out_dir: Path, seed: int) -> tuple[float, float, float]:
    """Return image AUROC, false reject ratio and recall with 70 % of the normals trained on."""
    training, rest = split_normals(images, share=0.7, seed=seed)
    fitted = fit_model(
        training, project="photos", version=f"s{seed}", out_dir=out_dir, options=FitOptions(seed=seed)
    )
    normal = scores_of(fitted, [one for one in rest if one.label is Verdict.NORMAL])
    anomalous = scores_of(fitted, [one for one in rest if one.label is Verdict.ANOMALY])
    threshold = fitted.manifest.calibration.threshold
    return image_auroc(normal, anomalous), share_from(normal, threshold), share_from(anomalous, threshold)


@pytest.mark.parametrize("seed", [0, 1])
def test_cookies(data: Path, tmp_path: Path, seed: int) -> None:
    images = cookies(data)
    assert len(images) == 85
    auroc, false_rejects, recall = tried(images, tmp_path, seed)
    assert auroc >= 0.96
    assert false_rejects <= 0.22  # 14 held-back cookies: one each is 7 %
    assert recall >= 0.7


def test_paper_impurities(data: Path, tmp_path: Path) -> None:
    auroc, false_rejects, recall = tried(bearings(data), tmp_path, seed=0)
    assert auroc >= 0.97
    assert false_rejects <= 0.22
    assert recall >= 0.85


def test_screws(data: Path, tmp_path: Path) -> None:
    """Screws lie anywhere and 8 train: positions say nothing, and must not spoil what the memory says."""
    auroc, _, _ = tried(screws(data), tmp_path, seed=0)
    assert auroc >= 0.85
