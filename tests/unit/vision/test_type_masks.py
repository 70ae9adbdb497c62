"""Which place is of which type: on the grid, as regions, and in a PNG of the picture's own size."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from services.domain.model_version import AnomalyType, Calibration, Manifest
from services.vision.outputs import ImageOutputs
from services.vision.regions import interpolation_matrix
from services.vision.scoring import judge
from services.vision.type_masks import mask_classes, mask_png, places_of, whole_map
from tests.unit.vision.manifests import manifest_of

CALIBRATION = Calibration(1.7, 0.4, 0.6, 31, 0.02, 1.4, 2.2, map_threshold=2.0, map_sigma_px=2.0)
SCRATCH, DENT = AnomalyType("scratch", "#d62728", 0.5), AnomalyType("dent", "#1f77b4", 0.5)
WHITE, RED, BLUE, ORANGE = (255, 255, 255), (214, 39, 40), (31, 119, 180), (255, 127, 14)
PLAIN, TYPED = manifest_of(CALIBRATION), manifest_of(CALIBRATION, SCRATCH, DENT)


def spots(*boxes: tuple[slice, slice], value: float = 9) -> NDArray[np.float32]:
    """Return a map (56, 56) with rectangles."""
    made = np.zeros((56, 56), np.float32)
    for box in boxes:
        made[box] = value
    return made


LEFT, RIGHT = (slice(10, 20), slice(8, 16)), (slice(30, 36), slice(40, 46))


def typed(score: float = 9.0) -> ImageOutputs:
    """Return outputs with a scratch on the left and something without a name on the right."""
    types = np.stack([spots(LEFT, value=0.9), np.full((56, 56), 0.1, np.float32)])
    return ImageOutputs(score, spots(LEFT, RIGHT), types)


def pixels(one: ImageOutputs, manifest: Manifest, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(mask_png(one, manifest, size_px))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", size_px)
        return np.array(image)


def colours(found: NDArray[np.uint8]) -> set[tuple[int, ...]]:
    return {tuple(one) for one in np.unique(found.reshape(-1, 3), axis=0).tolist()}


def test_a_named_type_names_its_region_and_the_rest_is_an_anomaly() -> None:
    regions = judge(typed(), TYPED).regions
    assert [one.anomaly_type for one in regions] == ["scratch", "anomaly"]
    scratch, unnamed = regions
    assert scratch.left_ratio == pytest.approx(8 / 56, abs=0.5 / 56)
    assert scratch.area_ratio == pytest.approx(80 / 56**2, rel=0.1)
    assert unnamed.left_ratio == pytest.approx(40 / 56, abs=1 / 56)


def test_the_rim_of_a_typed_place_is_no_second_anomaly() -> None:
    # The map is high around the scratch, too: by a cell on each side, as after a blur.
    wide = spots((slice(9, 21), slice(7, 17)))
    one = replace(typed(), anomaly_map=wide)
    assert [region.anomaly_type for region in judge(one, TYPED).regions] == ["scratch"]
    assert colours(pixels(one, TYPED, (560, 560))) == {WHITE, RED}


def test_the_most_probable_type_wins() -> None:
    both = np.stack([spots(LEFT, value=0.6), spots(LEFT, value=0.8)])
    assert judge(replace(typed(), types=both), TYPED).regions[0].anomaly_type == "dent"


def test_a_weak_map_still_names_its_highest_place_unless_a_type_is_found() -> None:
    weak = ImageOutputs(9.0, spots(RIGHT, value=1.0))
    (only,) = judge(weak, PLAIN).regions
    assert only.left_ratio < 43 / 56 < only.left_ratio + only.width_ratio
    assert ORANGE in colours(pixels(weak, PLAIN, (300, 200)))
    named = replace(weak, types=np.stack([spots(LEFT, value=0.9), spots()]))
    assert [region.anomaly_type for region in judge(named, TYPED).regions] == ["scratch"]


def test_a_mask_has_the_pictures_size_and_a_colour_a_type_on_white() -> None:
    mask = pixels(typed(), TYPED, (560, 280))
    assert colours(mask) == {WHITE, RED, ORANGE}
    # Cells are 10 px wide and 5 px high; the middle of each place, and a corner of nothing.
    assert tuple(mask[15 * 5, 12 * 10]) == RED
    assert tuple(mask[33 * 5, 43 * 10]) == ORANGE
    assert tuple(mask[2, 2]) == WHITE


def test_a_normal_picture_has_a_white_mask_and_no_regions() -> None:
    one = typed(score=0.3)
    assert judge(one, TYPED).regions == ()
    assert colours(pixels(one, TYPED, (30, 20))) == {WHITE}


def test_an_untyped_anomaly_never_has_the_colour_of_a_type() -> None:
    manifest = manifest_of(CALIBRATION, replace(SCRATCH, colour="#FF7F0E"))
    one = ImageOutputs(9.0, spots(LEFT, RIGHT), spots(LEFT, value=0.9)[None])
    assert len(colours(pixels(one, manifest, (112, 112)))) == 3


def test_what_is_called_the_same_has_one_colour() -> None:
    # Drawn masks without a name teach a type that is called as what no type explains.
    manifest = manifest_of(CALIBRATION, replace(SCRATCH, name="anomaly"))
    one = ImageOutputs(9.0, spots(LEFT, RIGHT), spots(LEFT, value=0.9)[None])
    assert {region.anomaly_type for region in judge(one, manifest).regions} == {"anomaly"}
    assert colours(pixels(one, manifest, (112, 112))) == {WHITE, RED}


def test_thresholds_hold_after_upsampling() -> None:
    # By definition: probabilities on the region grid, bilinear to the picture's size, then compared.
    one = typed()
    places = places_of(one, TYPED)
    down, across = interpolation_matrix(112, 300), interpolation_matrix(112, 400)
    expected = (down @ places.probabilities[0] @ across.T) >= 0.5
    found = np.concatenate(list(mask_classes(one, TYPED, (400, 300)))) == 1
    assert (found != expected).mean() < 1e-4


def test_strips_of_a_large_picture_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(mask_classes(typed(), TYPED, (500, 400))))
    monkeypatch.setattr("services.vision.type_masks._STRIP_PX", 500 * 7)
    strips = list(mask_classes(typed(), TYPED, (500, 400)))
    assert len(strips) == 58
    # A row of pixels may round differently where two strips meet.
    assert (np.concatenate(strips) != whole).mean() < 1e-3


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 55), st.integers(0, 55))
def test_any_size_of_picture_any_place(width_px: int, height_px: int, row: int, column: int) -> None:
    one = ImageOutputs(9.0, spots((slice(row, row + 1), slice(column, column + 1))))
    classes = np.concatenate(list(mask_classes(one, PLAIN, (width_px, height_px))))
    assert classes.shape == (height_px, width_px)
    assert classes.max() <= 1
    found = whole_map(one, PLAIN, (width_px, height_px))
    assert found.shape == (height_px, width_px)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_the_peak_of_the_whole_map_lies_in_the_largest_region() -> None:
    one = ImageOutputs(9.0, spots(RIGHT))
    found = whole_map(one, PLAIN, (640, 480))
    row, column = np.unravel_index(found.argmax(), found.shape)
    (region,) = judge(one, PLAIN).regions
    assert region.left_ratio <= column / 640 <= region.left_ratio + region.width_ratio
    assert region.top_ratio <= row / 480 <= region.top_ratio + region.height_ratio
