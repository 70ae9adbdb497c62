"""`loupe inspect` without a stack, and what it does when the stack cannot judge."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from services.adapters.database import migrate, open_engine
from services.adapters.object_store import folder_store
from services.cli.inspect import files_of, line_of, where_of
from services.cli.main import app
from services.domain.errors import BadRequest, ModelUnavailable, UnknownProject, UnreadableImage
from services.domain.frame import Frame
from services.domain.inspection import Inspection, Region
from services.embedded.home import Home
from services.embedded.judges import StackOrLocal
from services.trainer.registry import Registry
from services.vision.runtime import verify_folder
from tests.unit.serve.fakes import verdict
from tests.unit.serve.models import picture, write_version
from tests.unit.trainer.models import promoted


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home whose project `plates` has a detector that calls bright pictures anomalous."""
    home = Home(tmp_path / "home")
    home.path.mkdir()
    migrate(home.database_url)
    engine = open_engine(home.database_url)
    folder = write_version(tmp_path / "fitted")
    promoted(Registry(engine, folder_store(home.objects)), folder, verify_folder(folder))
    engine.dispose()
    return home


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "bright.png").write_bytes(picture(255))
    (folder / "more" / "dark.PNG").write_bytes(picture(51))
    (folder / "notes.txt").write_text("not looked at in a folder")
    return folder


def inspect(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["inspect", *arguments], env={"LOUPE_HOME": str(home.path)})


def test_prints_a_json_object_a_line(home: Home, photos: Path) -> None:
    result = inspect(home, str(photos), "--project", "plates", "--json")
    assert result.exit_code == 0, result.output
    bright, dark = (json.loads(line) for line in result.stdout.splitlines())
    assert (bright["source"], bright["is_anomalous"]) == (str(photos / "bright.png"), True)
    assert (dark["source"], dark["is_anomalous"]) == (str(photos / "more" / "dark.PNG"), False)
    assert dark["score"] == pytest.approx(2.0)
    assert (dark["threshold"], dark["model_version"], dark["regions"]) == (5.0, "v1", [])
    assert bright["regions"][0]["area_ratio"] > 0.9
    assert 0.5 <= bright["confidence"] <= 1


def test_shows_people_a_table_and_a_summary(home: Home, photos: Path) -> None:
    result = inspect(home, str(photos / "bright.png"), "--project", "plates")
    assert result.exit_code == 0
    assert "anomalous" in result.stdout
    assert "1 image, 1 anomalous; judged by plates v1 in this process." in result.stdout


def test_a_file_that_is_no_image_is_named_and_the_others_go_on(home: Home, photos: Path) -> None:
    files = [str(photos / name) for name in ("notes.txt", "bright.png", "nothing.png")]
    result = inspect(home, *files, "--project", "plates", "--json")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    assert f"{photos / 'notes.txt'}: The 25 bytes are not an image" in result.stderr
    assert f"{photos / 'nothing.png'}: The file cannot be read: No such file" in result.stderr


def test_an_unknown_project_is_a_sentence_with_what_to_do(home: Home, photos: Path) -> None:
    result = inspect(home, str(photos), "--project", "screws")
    assert result.exit_code == 2
    assert "There is no project screws. Known are: plates." in result.stderr


def test_before_the_first_fit_there_is_nothing_to_judge_with(tmp_path: Path, photos: Path) -> None:
    result = inspect(Home(tmp_path / "empty"), str(photos), "--project", "plates")
    assert result.exit_code == 2
    assert "loupe fit DIR --project plates" in result.stderr
    assert not (tmp_path / "empty").exists()


def test_a_folder_without_images_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="holds no images"):
        files_of([tmp_path])


FRAME = Frame(uuid4(), "cam", datetime(2026, 3, 1, tzinfo=UTC), b"good")


@pytest.mark.parametrize("error", [ModelUnavailable("starting"), UnknownProject("not hosted")])
def test_goes_on_in_this_process_when_the_stack_cannot_judge(error: Exception) -> None:
    calls = []

    def gateway(frame: Frame) -> Inspection:
        calls.append(frame)
        raise error

    judge = StackOrLocal(gateway, verdict)
    assert judge(FRAME).frame_id == FRAME.frame_id
    judge(FRAME)
    assert judge.is_local
    assert len(calls) == 1


def test_an_image_that_the_stack_refuses_is_not_tried_again() -> None:
    def gateway(frame: Frame) -> Inspection:
        raise UnreadableImage("It is damaged.")

    judge = StackOrLocal(gateway, lambda _: pytest.fail("tried again"))
    with pytest.raises(UnreadableImage):
        judge(FRAME)


def test_names_the_largest_regions_only() -> None:
    regions = tuple(Region(0.1 * n, 0.2, 0.2, 0.4, 0.05, 3.0) for n in range(3))
    one = replace(verdict(FRAME), regions=regions, is_anomalous=True)
    assert where_of(one, 2) == "10%, 40%, 5.0%; 20%, 40%, 5.0%; and 1 more"
    assert where_of(one, 0) == ""


def test_named_types_are_told_with_the_share_that_they_cover() -> None:
    regions = tuple(
        Region(0.1, 0.2, 0.2, 0.4, area, 3.0, name)
        for name, area in (("dent", 0.04), ("anomaly", 0.03), ("scratch", 0.025), ("scratch", 0.025))
    )
    one = replace(verdict(FRAME), regions=regions, is_anomalous=True)
    assert line_of(one)["types"] == [
        {"name": "scratch", "area_ratio": pytest.approx(0.05)},
        {"name": "dent", "area_ratio": 0.04},
    ]
    assert where_of(one, 2) == "dent 20%, 40%, 4.0%; 20%, 40%, 3.0%; and 2 more"
    assert line_of(verdict(FRAME))["types"] == []


def test_writes_maps_and_masks_of_every_photo_at_its_own_size(
    home: Home, photos: Path, tmp_path: Path
) -> None:
    half = np.zeros((120, 60, 3), np.uint8)
    half[60:] = 255  # dark above, bright below: score 5, the threshold
    half[60:80] = 160
    Image.fromarray(half).save(photos / "half.png")
    maps, masks = tmp_path / "out" / "maps", tmp_path / "out" / "masks"
    files = [str(photos), "--project", "plates", "--maps", str(maps), "--masks", str(masks), "--json"]
    result = inspect(home, *files)
    assert result.exit_code == 0, result.output
    assert sorted(one.name for one in maps.iterdir()) == ["bright.npy", "dark.npy", "half.npy"]
    assert sorted(one.name for one in masks.iterdir()) == ["bright.png", "dark.png", "half.png"]
    sizes = {"bright": (40, 40), "dark": (40, 40), "half": (120, 60)}
    lines = {Path(line["source"]).stem: line for line in map(json.loads, result.stdout.splitlines())}
    for name, shape in sizes.items():
        found = np.load(maps / f"{name}.npy", allow_pickle=False)
        assert found.shape == shape
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        with Image.open(masks / f"{name}.png") as mask:
            assert (mask.mode, mask.size) == ("RGB", shape[::-1])
            marked = (np.array(mask) != 255).any(axis=2)
        assert marked.any() == lines[name]["is_anomalous"]
        for region in lines[name]["regions"]:
            row, column = np.unravel_index(found.argmax(), found.shape)
            assert region["top_ratio"] <= row / shape[0] <= region["top_ratio"] + region["height_ratio"]
            assert region["left_ratio"] <= column / shape[1] <= region["left_ratio"] + region["width_ratio"]
    # Without a stack it is this process that judges anyway; the summary says so.
    assert "in this process" in inspect(home, *files[:-1]).stdout


def test_help_says_who_judges_when_something_is_drawn() -> None:
    told = " ".join(CliRunner().invoke(app, ["inspect", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "The stack does not send them, so this process judges then" in told


def test_a_folder_that_cannot_be_written_is_a_sentence_before_anything_is_judged(
    home: Home, photos: Path
) -> None:
    result = inspect(home, str(photos), "--project", "plates", "--maps", str(photos / "notes.txt"))
    assert result.exit_code == 2
    assert f"The folder {photos / 'notes.txt'} cannot be made: File exists." in result.stderr
    assert result.stdout == ""


def test_masks_never_overwrite_photos(home: Home, photos: Path) -> None:
    before = (photos / "bright.png").read_bytes()
    result = inspect(home, str(photos / "bright.png"), "--project", "plates", "--masks", str(photos))
    assert result.exit_code == 2
    assert "is one of the photos; choose another folder" in result.stderr
    assert (photos / "bright.png").read_bytes() == before
