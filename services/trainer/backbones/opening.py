"""Which backbone a fit runs on: the prepared one, random weights, or a file of the user's (arrow 6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.efficientnet import default_backbone_path, load_backbone
from services.trainer.backbones.onnx_file import read_onnx_file
from services.trainer.backbones.random_resnet import random_resnet
from services.trainer.dataset import Dataset

RANDOM = "random"
# Statistics of 16 photos differ little from those of all; the pass over them holds some 400 MB.
_CALIBRATION_PHOTOS = 16


def open_backbone(
    spec: str | Path | None = None, *, licence: str = "", seed: int = 0, default: Path | None = None
) -> BackboneFile:
    """Return a backbone, ready to be looked at; `calibrated` makes it ready to be used.

    Args:
        spec: `random`; or an ONNX file (`onnx_file`); None or empty: the one that set-up prepared, and
            where that was not done the random one, with a warning.
        licence: of a file's weights, where neither it nor the file beside it says.
        seed: of the random one.
        default: where set-up put its backbone, if not inside the Python environment.

    Raises:
        BadRequest: the file is no ONNX network that can be used as a backbone.
        CorruptModel: its features are not finite.
        MissingPart: the prepared one was changed on disk.
    """
    if spec == RANDOM:
        return random_resnet(seed)
    if spec:
        return read_onnx_file(Path(spec), licence)
    default = default or default_backbone_path()
    if default.is_file():
        return load_backbone(default)
    warning = (
        "The default backbone is not prepared on this machine, so one with random weights stands in, which "
        "finds less; run `loupe setup` and fit again."
    )
    return random_resnet(seed, warnings=(warning,))


def calibrated(backbone: BackboneFile, normals: Dataset) -> BackboneFile:
    """Return the backbone ready for use: the random one takes its statistics from normal photos.

    Args:
        backbone: as `open_backbone` gave it.
        normals: at least one photo, as large as the backbone's input or, with tiles, larger.
    """
    if backbone.seed is None:
        return backbone
    chosen = np.unique(np.linspace(0, len(normals) - 1, _CALIBRATION_PHOTOS).astype(int)).tolist()
    windows = [
        _window(normals.pixels(index), backbone.input_px, number) for number, index in enumerate(chosen)
    ]
    return random_resnet(backbone.seed, photos=np.stack(windows), warnings=backbone.warnings)


def _window(pixels: NDArray[np.uint8], side_px: int, number: int) -> NDArray[np.uint8]:
    """Return (side, side, 3) of a larger photo: with tiles another corner for each number."""
    room_px = pixels.shape[0] - side_px
    top, left = room_px * (number // 2 % 2), room_px * (number % 2)
    return pixels[top : top + side_px, left : left + side_px]
