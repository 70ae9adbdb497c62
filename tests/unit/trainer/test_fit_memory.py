"""How much memory a fit asks for, and how much there is."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from services.domain.errors import CannotFit
from services.domain.model_version import FitOptions
from services.trainer.fit_memory import _group_limits_bytes, check_memory, needed_bytes, offered_here_bytes


def test_more_photos_tiles_and_networks_need_more_up_to_a_bound() -> None:
    usual = FitOptions()
    assert needed_bytes(30, usual) < needed_bytes(300, usual)
    assert (
        needed_bytes(30, usual)
        < needed_bytes(30, FitOptions(tiles=2))
        < needed_bytes(30, FitOptions(tiles=4))
    )
    assert needed_bytes(30, usual) < needed_bytes(30, FitOptions(is_thorough=True))
    assert needed_bytes(3_000, usual) <= 3 << 30  # the promise of the README
    assert needed_bytes(20_000, usual) <= needed_bytes(3_000, usual) * 1.5


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
