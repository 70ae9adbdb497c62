"""`loupe inspect` without a stack, and what it does when the stack cannot judge."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from services.adapters.database import migrate, open_engine
from services.adapters.object_store import folder_store
from services.cli.inspect import files_of, where_of
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
