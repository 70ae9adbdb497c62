"""A fold runs in a process of its own; what goes wrong there is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.domain.errors import Rejected
from services.trainer.bench.fold import FoldJob, run_fold
from services.trainer.bench.protocols import Protocol
from tests.unit.trainer.pictures import picture


def job(data: Path, *families: str) -> FoldJob:
    return FoldJob(str(data), "screws", Protocol.NORMALS_ONLY, 0, families)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set of three good parts and a bad one."""
    for folder, count in (("normal", 3), ("missing", 1)):
        (tmp_path / "screws" / folder).mkdir(parents=True)
        for number in range(count):
            photo = picture(number, is_bad=folder == "missing")
            (tmp_path / "screws" / folder / f"{number}.png").write_bytes(photo)
    return tmp_path


def test_what_the_fit_refuses_is_its_own_sentence(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="There is no family crystal-ball"):
        run_fold(job(data, "crystal-ball"), tmp_path / "work")


def test_a_crash_is_told_by_its_last_line(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with pytest.raises(Rejected, match="The fit crashed: ValueError: 'sideways'"):
        run_fold(FoldJob(str(tmp_path), "screws", "sideways", 0), folder)  # type: ignore[arg-type]  # unknown
