"""A report's file is refused before the work, and leaves nothing behind until it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.cli.report_file import check_report, write_report
from services.domain.errors import BadRequest


def test_a_report_is_written_into_a_folder_that_is_made_for_it(tmp_path: Path) -> None:
    report = tmp_path / "new folder" / "Ümläut.json"
    check_report(report)
    assert list(report.parent.iterdir()) == []
    write_report(report, {"f1": 1.0})
    assert json.loads(report.read_text()) == {"f1": 1.0}


def test_an_older_report_stays_until_there_is_a_new_one(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("{}")
    check_report(report)
    assert report.read_text() == "{}"


def test_no_report_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_report(None)
    write_report(None, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("folder", "is a folder; give the name of a file"),
        ("file/report.json", "cannot be written"),
        ("folder/" + "x" * 300, "cannot be written"),
    ],
)
def test_where_no_file_can_be_is_said_in_a_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRequest, match=sentence):
        check_report(tmp_path / name)
