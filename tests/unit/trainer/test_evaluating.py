"""Photos are judged as serving judges them, and held against what is true of each."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.domain.errors import NotEnoughImages
from services.domain.label import Verdict
from services.domain.model_version import AnomalyType, Backbone, Calibration, Manifest, TensorSpec
from services.trainer.dataset import LabelledImage
from services.trainer.evaluating import MAP_PX, judge_photos, read_test_photos
from services.vision.outputs import GraphOutputs
from services.vision.runtime import OnnxModel
from tests.unit.serve.models import picture, write_version
from tests.unit.trainer.models import CREATED_AT

SIDE_PX = 64


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def spotted(side_px: int = SIDE_PX) -> tuple[bytes, bytes]:
    """Return a dark photo whose upper left quarter is white, and the mask of that quarter."""
    pixels = np.full((side_px, side_px, 3), 20, np.uint8)
    pixels[: side_px // 2, : side_px // 2] = 255
    return png(pixels), png((pixels[:, :, 0] == 255).astype(np.uint8) * np.uint8(255))


class Bright:
    """Says that bright pixels are anomalous, and of type `spot`."""

    def __init__(self, *, has_types: bool = True) -> None:
        spot = (AnomalyType("spot", "#ff0000", 0.5),)
        self.manifest = Manifest(
            project="plates",
            version="v1",
            created_at=CREATED_AT,
            family="bright",
            inputs=(TensorSpec("pixels", "uint8", (-1, SIDE_PX, SIDE_PX, 3)),),
            outputs=(),
            calibration=Calibration(0.5, 0.1, 0.1, 30, 0.02, 0.4, 0.6, 0.5, 0.0),
            backbone=Backbone("none", "0" * 64, "Apache-2.0"),
            data_digest="0" * 64,
            train_images=30,
            files={},
            types=spot if has_types else (),
        )
        self.batches: list[int] = []

    def infer(self, batch: NDArray[np.uint8]) -> GraphOutputs:
        self.batches.append(len(batch))
        maps = (batch[:, :, :, 0] / 255).astype(np.float32)
        types = maps[:, None] if self.manifest.types else None
        return GraphOutputs(maps.max(axis=(1, 2)), maps, types)


def dark(number: int) -> LabelledImage:
    return LabelledImage(png(np.full((8 + number, 9, 3), 20, np.uint8)), f"dark-{number}.png")


def bad(name: str, **known: object) -> LabelledImage:
    photo, mask = spotted()
    about: dict[str, object] = {"masks": {"spot": mask}, **known}
    return LabelledImage(photo, name, Verdict.ANOMALY, **about)  # type: ignore[arg-type]  # by name


def test_every_photo_is_judged_in_the_order_given() -> None:
    model, told = Bright(), list[float]()
    judged = judge_photos([*(dark(n) for n in range(9)), bad("bad.png")], model, told.append)
    assert [one.name for one in judged.outcomes] == [*(f"dark-{n}.png" for n in range(9)), "bad.png"]
    assert model.batches == [8, 2]
    assert told == [0.8, 1.0]
    assert [one.verdict for one in judged.outcomes] == [*[Verdict.NORMAL] * 9, Verdict.ANOMALY]
    assert judged.outcomes[0].score == pytest.approx(20 / 255)


def test_maps_and_masks_meet_at_one_size() -> None:
    judged = judge_photos([dark(0), bad("bad.png")], Bright())
    assert judged.maps is not None
    assert judged.masks is not None
    assert judged.maps.shape == judged.masks.shape == (2, MAP_PX, MAP_PX)
    assert not judged.masks[0].any()
    # A quarter of the photo; the map is 1 where the mask is, and dark elsewhere but for its edge.
    assert judged.masks[1].mean() == pytest.approx(0.25)
    assert judged.maps[1][judged.masks[1]].mean() == pytest.approx(1.0, abs=0.02)
    metrics = judged.evaluation().metrics
    assert metrics["image_auroc"] == 1
    assert metrics["pixel_auroc"] > 0.99
    assert metrics["aupro"] > 0.99


def test_found_types_are_held_against_those_drawn() -> None:
    judged = judge_photos([dark(0), bad("bad.png")], Bright())
    assert judged.outcomes[1].types == judged.outcomes[1].found_types == ("spot",)
    assert judged.outcomes[0].found_types == ()
    (row,) = judged.evaluation().types
    assert (row.name, row.f1) == ("spot", 1)
    assert row.mean_iou is not None
    assert row.mean_iou > 0.95


def test_a_type_that_the_version_does_not_know_is_missed() -> None:
    photo, mask = spotted()
    other = LabelledImage(photo, "other.png", Verdict.ANOMALY, masks={"dent": mask})
    rows = {row.name: row for row in judge_photos([dark(0), other], Bright()).evaluation().types}
    assert (rows["dent"].images, rows["dent"].f1, rows["dent"].mean_iou) == (1, 0, 0)


def test_without_types_a_version_is_not_wrong_about_names() -> None:
    judged = judge_photos([dark(0), bad("bad.png")], Bright(has_types=False))
    assert judged.type_masks is None
    (row,) = judged.evaluation().types
    assert (row.name, row.images, row.missed, row.f1) == ("spot", 1, 0, None)


def test_without_masks_no_maps_are_kept() -> None:
    judged = judge_photos([dark(0), bad("bad.png", masks={})], Bright())
    assert (judged.maps, judged.masks, judged.type_masks) == (None, None, None)
    assert "pixel_auroc" not in judged.evaluation().metrics


def test_what_cannot_be_judged_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    _, small_mask = spotted(32)
    photos = [
        LabelledImage(b"no image", "notes.txt"),
        dark(0),
        LabelledImage(tmp_path / "gone.png", "gone.png"),
        bad("misfit.png", masks={"spot": small_mask}),
        bad("faulty.png", fault="Two people disagree."),
        bad("bad.png"),
    ]
    judged = judge_photos(photos, Bright())
    assert [one.name for one in judged.outcomes] == ["dark-0.png", "bad.png"]
    assert judged.maps is not None
    assert len(judged.maps) == 2
    reasons = {one.name: one.reason for one in judged.skipped}
    assert list(reasons) == ["notes.txt", "gone.png", "misfit.png", "faulty.png"]
    assert "No such file" in reasons["gone.png"]
    assert "32 x 32" in reasons["misfit.png"]
    assert reasons["faulty.png"] == "Two people disagree."


def test_nothing_to_judge_is_a_sentence() -> None:
    with pytest.raises(NotEnoughImages, match=r"None of the 1 photos can be judged\. notes\.txt: "):
        judge_photos([LabelledImage(b"no image", "notes.txt")], Bright())


def test_a_version_on_disk_is_judged(tmp_path: Path) -> None:
    judged = judge_photos([LabelledImage(picture(51), "dark.png")], OnnxModel(write_version(tmp_path)))
    # 51 / 25.5 is 2.
    assert judged.outcomes[0].score == pytest.approx(2.0)
    assert judged.outcomes[0].verdict is Verdict.NORMAL


def test_what_a_folder_sets_apart_for_the_test_is_all_that_is_judged(tmp_path: Path) -> None:
    for name in ("train/normal/a.png", "test/normal/b.png", "test/anomaly/scratch/c.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(picture(50))
    found = read_test_photos(tmp_path)
    assert [(one.name, one.label) for one in found] == [
        ("test/normal/b.png", Verdict.NORMAL),
        ("test/anomaly/scratch/c.png", Verdict.ANOMALY),
    ]
    assert found[1].types == ("scratch",)


@pytest.mark.parametrize(("folder", "label"), [("anomaly", Verdict.ANOMALY), (".", Verdict.NORMAL)])
def test_anomalies_alone_and_good_parts_alone_can_be_judged(
    tmp_path: Path, folder: str, label: Verdict
) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "a.png").write_bytes(picture(50))
    (one,) = read_test_photos(tmp_path)
    assert one.label is label


def test_a_manifest_is_judged_photo_by_photo(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(50))
    about = {"class-name": "anomaly", "type": "groundtruth/image-classification"}
    line = {"source-ref": "a.png", "anomaly-label": 1, "anomaly-label-metadata": about}
    (tmp_path / "test.manifest").write_text(json.dumps(line) + "\n")
    (one,) = read_test_photos(tmp_path / "test.manifest")
    assert (one.fault, one.label) == ("", Verdict.ANOMALY)
