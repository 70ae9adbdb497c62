"""Which backbone a wish leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.domain.errors import BadRequest
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.opening import calibrated, open_backbone
from services.trainer.dataset import Dataset
from tests.unit.trainer.backbones.networks import Network
from tests.unit.trainer.pictures import pictures


def test_none_is_the_prepared_one(backbone: BackboneFile, backbone_path: Path) -> None:
    assert open_backbone(default=backbone_path) == backbone
    assert open_backbone("", default=backbone_path) == backbone


def test_without_preparation_the_random_one_stands_in_and_says_so(tmp_path: Path) -> None:
    backbone = open_backbone(seed=5, default=tmp_path / "absent.onnx")
    assert backbone.identity.name == "random-resnet18-seed5"
    assert "loupe setup" in backbone.warnings[0]
    assert open_backbone("random", seed=5).warnings == ()


def test_the_prepared_file_is_an_onnx_file_like_any_other(
    backbone: BackboneFile, backbone_path: Path
) -> None:
    assert open_backbone(backbone_path).identity == backbone.identity
    assert open_backbone(str(backbone_path)).identity == backbone.identity


def test_a_name_that_is_no_file_is_refused() -> None:
    with pytest.raises(BadRequest, match="not a file"):
        open_backbone("resnet50")


def test_only_the_random_one_looks_at_photos(tmp_path: Path) -> None:
    dataset = Dataset(pictures(20))
    own = open_backbone(Network().write(tmp_path))
    assert calibrated(own, dataset) is own
    opened = open_backbone("random", seed=2)
    fitted = calibrated(opened, dataset)
    assert fitted.model != opened.model
    assert fitted == calibrated(opened, Dataset(pictures(20)))


def test_calibration_keeps_the_warnings_and_takes_tiles(tmp_path: Path) -> None:
    opened = open_backbone(default=tmp_path / "absent.onnx")
    fitted = calibrated(opened, Dataset(pictures(3), input_px=416))
    assert fitted.warnings == opened.warnings
    assert fitted.input_px == 224
