"""Dark, frozen and blurred pictures are found; good ones, noise and passing parts are not."""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from services.domain.camera import CameraState
from services.ingest.picture_health import PictureHealth
from services.ingest.synthetic import SyntheticLine

SIZE_PX = (320, 240)
FROZEN_AFTER_S = 10.0
# Every folder of real photos of one scene; each is shown as a camera would.
FOLDERS = (
    "aws-lookout-cookies/dataset-files/training-images", "aws-lookout-cookies/test-images",
    "aws-scratch-plates/images/good", "aws-scratch-plates/images/bad", "bsdata-ballscrew/no-label",
    "bsdata-ballscrew/pitting", "piped-paper/PA_BRG01_RL/normal", "piped-paper/PA_BRG01_RL/defect",
    "piped-paper/PA_ZPB01_RL/normal", "piped-paper/PA_ZPB01_RL/defect", "screws/normal", "screws/missing",
)  # fmt: skip


def jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue()


def parts(count: int, first: int = 0) -> list[Image.Image]:
    line = SyntheticLine(3, SIZE_PX)
    return [Image.open(io.BytesIO(line.part(first + index).jpeg())) for index in range(count)]


def blurred(image: Image.Image, radius_px: float = 5) -> Image.Image:
    return image.convert("RGB").filter(ImageFilter.GaussianBlur(radius_px))


def noisy(image: Image.Image, seed: int, sigma: float = 1.0) -> Image.Image:
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    noise = np.random.default_rng(seed).normal(0, sigma, (*pixels.shape[:2], 1))
    return Image.fromarray(np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8))


def states(
    health: PictureHealth, images: Iterable[Image.Image], first_s: float = 0.0
) -> list[CameraState | None]:
    return [health.look(jpeg(image), first_s + second) for second, image in enumerate(images)]


def test_a_black_picture_is_dark_after_three_looks_and_no_longer_after_three_good_ones() -> None:
    health = PictureHealth(watches_frozen=False)
    black = [image.point(lambda value: value * 0.03) for image in parts(4)]
    assert states(health, black) == [None, None, CameraState.DARK, CameraState.DARK]
    assert states(health, parts(3)) == [CameraState.DARK, CameraState.DARK, None]


def test_a_dark_scene_with_a_lit_part_is_not_dark() -> None:
    scene = Image.new("RGB", SIZE_PX, (4, 4, 4))
    # 2 of 100 pixels: above the bound of 1 in 100 that makes it a picture.
    scene.paste((200, 200, 200), (100, 100, 100 + 48, 100 + 32))
    assert set(states(PictureHealth(watches_frozen=False), [scene] * 5)) == {None}


def test_a_repeated_picture_is_frozen_after_ten_seconds_and_not_after_it_moves() -> None:
    health = PictureHealth(watches_frozen=True, frozen_after_s=FROZEN_AFTER_S)
    (still, other) = parts(2)
    found = states(health, [still] * 12)
    # The first of twelve looks, a second apart, is at 0 s: the eleventh is the first at 10 s.
    assert found == [None] * 10 + [CameraState.FROZEN] * 2
    assert health.look(jpeg(other), 12.0) is None


def test_equal_pictures_are_no_fault_where_nobody_watches_for_them() -> None:
    assert set(states(PictureHealth(watches_frozen=False), parts(1) * 15)) == {None}


@pytest.mark.parametrize("size_px", [(320, 240), (1920, 1080)])
def test_a_still_scene_of_a_live_camera_is_not_frozen(size_px: tuple[int, int]) -> None:
    health = PictureHealth(watches_frozen=True, frozen_after_s=2.0)
    (scene,) = parts(1)
    images = (noisy(scene.resize(size_px), seed) for seed in range(6))
    assert set(states(health, images)) == {None}


def test_an_even_grey_scene_of_a_live_camera_is_not_frozen() -> None:
    health = PictureHealth(watches_frozen=True, frozen_after_s=2.0)
    grey = Image.new("RGB", SIZE_PX, (120, 120, 120))
    assert set(states(health, (noisy(grey, seed) for seed in range(6)))) == {None}


def test_out_of_focus_is_found_after_three_looks_and_left_after_three() -> None:
    health = PictureHealth(watches_frozen=False)
    assert set(states(health, parts(15))) == {None}
    found = states(health, [blurred(part) for part in parts(4, first=15)])
    assert found == [None, None, CameraState.BLURRED, CameraState.BLURRED]
    assert states(health, parts(3)) == [CameraState.BLURRED, CameraState.BLURRED, None]


def test_it_stays_blurred_however_long_it_lasts() -> None:
    health = PictureHealth(watches_frozen=False)
    states(health, parts(12))
    found = states(health, [blurred(part) for part in parts(10)] * 10)
    assert set(found[2:]) == {CameraState.BLURRED}


def test_one_blurred_part_is_no_fault() -> None:
    health = PictureHealth(watches_frozen=False)
    states(health, parts(12))
    images = chain.from_iterable((blurred(part), blurred(part), part) for part in parts(4))
    assert set(states(health, images)) == {None}


def test_an_empty_belt_is_not_out_of_focus() -> None:
    health = PictureHealth(watches_frozen=False)
    states(health, parts(12))
    # Brighter on the left, by 30 levels, as lamps make it; nothing lies on it.
    slope = np.repeat(np.linspace(130, 100, SIZE_PX[0])[None], SIZE_PX[1], axis=0)
    belt = Image.fromarray(slope.astype(np.uint8))
    assert set(states(health, (noisy(belt, seed, 0.5) for seed in range(6)))) == {None}


def test_a_covered_lens_is_found() -> None:
    health = PictureHealth(watches_frozen=False)
    states(health, parts(12))
    white = Image.new("RGB", SIZE_PX, (255, 255, 255))
    assert states(health, [white] * 3)[-1] is CameraState.BLURRED


@pytest.mark.parametrize("image", [b"", b"no image", b"\xff\xd8\xff\xe0 cut off"])
def test_what_cannot_be_read_tells_nothing(image: bytes) -> None:
    health = PictureHealth(watches_frozen=True, frozen_after_s=0.0)
    assert health.look(image, 0.0) is None


def test_a_tiny_picture_is_looked_at_as_well() -> None:
    assert set(states(PictureHealth(watches_frozen=False), [Image.new("RGB", (2, 2), "grey")] * 15)) == {None}


@pytest.mark.photos
@pytest.mark.parametrize("folder", FOLDERS)
def test_real_photos_are_fine_in_order_and_faults_of_them_are_found(data: Path, folder: str) -> None:
    files = sorted(file for file in (data / folder).iterdir() if file.suffix in {".jpg", ".png"})[:15]
    photos = [Image.open(file).convert("RGB") for file in files]
    # Several passes: ten looks are the fewest to judge by.
    shown = list(islice(chain.from_iterable(repeat(photos)), 20))
    health = PictureHealth(watches_frozen=True)
    assert set(states(health, shown)) == {None}
    assert states(health, [blurred(photo) for photo in shown[:3]], 20.0)[-1] is CameraState.BLURRED
    assert states(health, shown[:3], 23.0)[-1] is None
    assert (
        states(health, [photo.point(lambda v: v * 0.03) for photo in shown[:3]], 26.0)[-1] is CameraState.DARK
    )
    assert states(health, shown[:3], 29.0)[-1] is None
    assert states(health, [photos[0]] * 12, 32.0)[-1] is CameraState.FROZEN
