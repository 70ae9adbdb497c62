"""Bringing up: in dependency order, filled before anyone waits for it, the first failure ends it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import pytest

from services.domain.errors import StopProcess
from services.embedded.bringup import BringUp, Phase, StackEvent
from services.embedded.home import Home
from services.embedded.programs import Program
from services.embedded.supervision import ProcessInfo


class FakeStarter:
    """Keeps a diary; a program named in `dying` is restarted at every look."""

    def __init__(self, *, dying: str = "", running: tuple[str, ...] = ()) -> None:
        self.diary: list[str] = []
        self._dying = dying
        self._pids = dict.fromkeys(running, 1)
        self._clock_s = 0
        self._lock = Lock()

    def start_program(self, name: str) -> None:
        with self._lock:
            self.diary.append(f"start {name}")
            self._pids[name] = 1

    def processes(self) -> Mapping[str, ProcessInfo]:
        with self._lock:
            self._clock_s += 1
            return {
                name: ProcessInfo(
                    name,
                    "RUNNING",
                    self._pids.get(name),
                    self._clock_s if name == self._dying else 0,
                    "",
                )
                for name in ("first", "second", "third")
            }


def program(
    starter: FakeStarter, name: str, *after: str, is_ready: bool = True, deadline_s: float = 5
) -> Program:
    return Program(
        name=name,
        command=(),
        is_ready=lambda: is_ready and f"start {name}" in starter.diary,
        port=1,
        version="1",
        after=after,
        prepare=lambda: starter.diary.append(f"prepare {name}"),
        finish=lambda: starter.diary.append(f"finish {name}"),
        deadline_s=deadline_s,
    )


def bring_up(
    tmp_path: Path, starter: FakeStarter, *programs: Program
) -> tuple[dict[str, float], list[StackEvent]]:
    events: list[StackEvent] = []
    chosen = {one.name: one for one in programs}
    return BringUp(Home(tmp_path), starter, chosen, events.append).run(), events


def test_a_program_starts_after_those_it_needs_are_ready_and_filled(tmp_path: Path) -> None:
    starter = FakeStarter()
    took_s, events = bring_up(
        tmp_path, starter, program(starter, "second", "first"), program(starter, "first")
    )
    assert starter.diary == [
        "prepare first", "start first", "finish first", "prepare second", "start second", "finish second",
    ]  # fmt: skip
    assert set(took_s) == {"first", "second"}
    assert [event.part for event in events if event.phase is Phase.READY] == ["first", "second"]


def test_a_needed_program_that_was_not_chosen_is_not_waited_for(tmp_path: Path) -> None:
    starter = FakeStarter()
    bring_up(tmp_path, starter, program(starter, "second", "first"))
    assert "start second" in starter.diary


def test_what_ran_before_counts_no_start_time(tmp_path: Path) -> None:
    starter = FakeStarter(running=("first",))
    took_s, _ = bring_up(tmp_path, starter, program(starter, "first"))
    assert took_s == {}


def test_a_program_that_is_not_ready_in_time_fails_with_its_log(tmp_path: Path) -> None:
    starter = FakeStarter()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "first.log").write_text("the port is taken\n")
    with pytest.raises(StopProcess, match=r"first is not ready after 0 s.*\nthe port is taken"):
        bring_up(tmp_path, starter, program(starter, "first", is_ready=False, deadline_s=0.1))


def test_a_program_that_dies_again_and_again_is_given_up_early(tmp_path: Path) -> None:
    starter = FakeStarter(dying="first")
    with pytest.raises(StopProcess, match="first dies while it starts"):
        bring_up(tmp_path, starter, program(starter, "first", is_ready=False, deadline_s=60))


def test_nothing_starts_after_a_failure(tmp_path: Path) -> None:
    starter = FakeStarter()
    with pytest.raises(StopProcess, match="first"):
        bring_up(
            tmp_path,
            starter,
            program(starter, "first", is_ready=False, deadline_s=0.1),
            program(starter, "second", "first"),
            program(starter, "third", is_ready=False, deadline_s=60),
        )
    assert "start second" not in starter.diary
