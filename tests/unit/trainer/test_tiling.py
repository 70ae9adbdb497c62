"""Tiles without seams: drawn against numpy, and against the backbone without tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.domain.errors import BadRequest
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.onnx_file import read_onnx_file
from services.trainer.features import FeatureExtractor
from services.trainer.tiling import OVERLAP_PX, placement, tiled_px
from tests.unit.trainer.backbones.networks import Network

TAPS = ("f4", "f8", "f16")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BackboneFile:
    """A backbone of 64 px."""
    return read_onnx_file(Network(("N", 3, 64, 64)).write(tmp_path_factory.mktemp("tiny")), "MIT")


def noise(side_px: int, count: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, side_px, side_px, 3)).astype(np.uint8)


def blended(
    extractor: FeatureExtractor, pixels: NDArray[np.uint8], tiles: int
) -> dict[str, NDArray[np.float64]]:
    """Put the features of every tile into one map by hand, cell by cell."""
    side_px, step_px = extractor.input_px, extractor.input_px - OVERLAP_PX
    made = {}
    for name, tap in extractor.taps.items():
        stride = side_px // tap.grid
        total = tiled_px(side_px, tiles) // stride
        values = np.zeros((len(pixels), tap.channels, total, total))
        weights = np.zeros((total, total))
        ramp = np.clip(((np.arange(tap.grid) + 0.5) * stride - 8) / 16, 0, 1)  # from 8 to 24 px of the 32
        for row in range(tiles):
            for column in range(tiles):
                top, left = row * step_px, column * step_px
                one = extractor.extract(
                    np.ascontiguousarray(pixels[:, top : top + side_px, left : left + side_px])
                )[name]
                down = (ramp if row else 1) * (ramp[::-1] if row < tiles - 1 else np.ones(tap.grid))
                across = (ramp if column else 1) * (ramp[::-1] if column < tiles - 1 else np.ones(tap.grid))
                window = np.s_[
                    top // stride : top // stride + tap.grid, left // stride : left // stride + tap.grid
                ]
                values[:, :, *window] += one * np.outer(down, across)
                weights[window] += np.outer(down, across)
        np.testing.assert_allclose(weights, 1, atol=1e-12)
        made[name] = values
    return made


@pytest.mark.parametrize("tiles", [1, 2, 3, 4])
def test_drawn_tiles_are_those_blended_by_hand(tiny: BackboneFile, tiles: int) -> None:
    tiled = FeatureExtractor(tiny, tiles=tiles)
    pixels = noise(tiled.input_px)
    found = tiled.extract(pixels)
    for name, value in blended(FeatureExtractor(tiny), pixels, tiles).items():
        assert found[name].shape[2] == tiled.taps[name].grid == tiled.input_px // int(name[1:])
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


def test_tiles_of_the_real_backbone_are_those_blended_by_hand(backbone: BackboneFile) -> None:
    pixels = noise(416, 1)
    found = FeatureExtractor(backbone, tiles=2).extract(pixels)
    for name, value in blended(FeatureExtractor(backbone), pixels, 2).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("grid", "overlap", "tiles"), [(56, 8, 2), (28, 4, 3), (14, 2, 4), (4, 2, 4), (14, 2, 1)]
)
def test_every_cells_weights_sum_to_one(grid: int, overlap: int, tiles: int) -> None:
    places = placement(grid, overlap, tiles)
    assert places.shape == (tiles * grid - (tiles - 1) * overlap, tiles * grid)
    np.testing.assert_allclose(places.sum(axis=1), 1, atol=1e-6)
    assert places.min() >= 0


def test_a_photo_does_not_depend_on_its_batch(tiny: BackboneFile) -> None:
    tiled = FeatureExtractor(tiny, tiles=2)
    pixels = noise(tiled.input_px, 5)
    together = tiled.extract(pixels)
    for name in TAPS:
        alone = np.concatenate([tiled.extract(one[None])[name] for one in pixels])
        np.testing.assert_allclose(together[name], alone, rtol=1e-5, atol=1e-5)


def test_one_colour_shows_no_seam(tmp_path: Path) -> None:
    # One cell of one pixel: no padding, so that nothing but the blending could show.
    unpadded = read_onnx_file(Network(("N", 3, 64, 64), outputs=("a",), pads=0).write(tmp_path), "MIT")
    tiled = FeatureExtractor(unpadded, tiles=3)
    found = tiled.extract(np.full((1, tiled.input_px, tiled.input_px, 3), 200, np.uint8))["f4"]
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :, :1, :1], found.shape), rtol=1e-5)


def test_a_tiles_centre_is_what_the_backbone_sees_there_alone(backbone: BackboneFile) -> None:
    whole, tiled = FeatureExtractor(backbone), FeatureExtractor(backbone, tiles=2)
    pixels = noise(416, 1)
    found = tiled.extract(pixels)
    for row in (0, 192):
        for column in (0, 192):
            alone = whole.extract(np.ascontiguousarray(pixels[:, row : row + 224, column : column + 224]))
            for name in TAPS:
                stride = int(name[1:])
                inner = np.s_[:, :, 32 // stride : 192 // stride, 32 // stride : 192 // stride]
                top, left = row // stride, column // stride
                here = found[name][:, :, top : top + 224 // stride, left : left + 224 // stride]
                np.testing.assert_allclose(here[inner], alone[name][inner], rtol=1e-4, atol=1e-4)


def test_a_pattern_that_repeats_from_tile_to_tile_has_equal_features_in_each(backbone: BackboneFile) -> None:
    pattern = noise(192, 1)
    pixels = np.tile(pattern, (1, 3, 3, 1))[:, :416, :416]
    found = FeatureExtractor(backbone, tiles=2).extract(np.ascontiguousarray(pixels))
    for name in TAPS:
        stride = int(name[1:])
        inner, step = slice(32 // stride, 192 // stride), 192 // stride
        first = found[name][:, :, inner, inner]
        other = found[name][:, :, step:, step:][:, :, inner, inner]
        np.testing.assert_allclose(first, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tiles", [0, -1, 5])
def test_senseless_tiles_are_refused(tiny: BackboneFile, tiles: int) -> None:
    with pytest.raises(BadRequest, match="give 1 to 4"):
        FeatureExtractor(tiny, tiles=tiles)


def test_on_one_colour_the_real_backbones_fine_maps_hardly_show_where_tiles_meet(
    backbone: BackboneFile,
) -> None:
    tiled = FeatureExtractor(backbone, tiles=2)
    fine = tiled.extract(np.full((1, 416, 416, 3), 127, np.uint8))["f4"][0]
    centre = fine[:, 28, 28]
    meeting = fine[:, 28, 48:56]  # the 32 px that two tiles share
    # Ramps over the whole overlap instead of its inner half: 0.2.
    assert np.abs(meeting - centre[:, None]).max() < 0.02 * np.sqrt(np.mean(fine**2))
