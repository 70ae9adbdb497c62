"""How much memory a fit asks for, and how much there is."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from services.domain.errors import CannotFit
from services.domain.model_version import FitOptions
from services.trainer import fit
from services.trainer.fit_memory import (
    MOST_NORMALS,
    _group_limits_bytes,
    check_memory,
    needed_bytes,
    offered_here_bytes,
)


def test_more_photos_tiles_and_networks_need_more_up_to_a_bound() -> None:
    usual = FitOptions()
    assert needed_bytes(30, 0, usual) < needed_bytes(300, 0, usual) < needed_bytes(300, 9, usual)
    few, some, many = (needed_bytes(30, 0, FitOptions(tiles=tiles)) for tiles in (1, 2, 4))
    assert few < some < many
    assert needed_bytes(30, 0, usual) < needed_bytes(30, 0, FitOptions(is_thorough=True))
    # What is promised: 1 GB for 30 photos, and a bound of 3 GB.
    assert needed_bytes(30, 0, usual) <= 10**9
    assert needed_bytes(3_000, 0, usual) == needed_bytes(20_000, 0, usual) <= 3 * 10**9


def test_no_more_normal_photos_are_counted_than_a_fit_draws() -> None:
    assert MOST_NORMALS == fit.MOST_NORMALS


def test_too_much_is_refused_with_both_numbers() -> None:
    check_memory(5, 5)
    with pytest.raises(CannotFit, match="about 300 MiB of memory; it may take 200 MiB") as caught:
        check_memory(300 << 20, 200 << 20)
    assert caught.value.details == {"asked": 300 << 20, "offered": 200 << 20}


def test_no_more_is_offered_than_the_machine_has() -> None:
    assert 0 < offered_here_bytes() <= psutil.virtual_memory().total


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    assert _group_limits_bytes(tmp_path) == []
    (tmp_path / "memory.max").write_text("max\n")
    assert _group_limits_bytes(tmp_path) == []
    (tmp_path / "memory.max").write_text("4096\n")
    assert 4096 in _group_limits_bytes(tmp_path)
