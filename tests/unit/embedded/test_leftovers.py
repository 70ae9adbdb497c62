"""Leftovers: found by their mark alone, ended for good."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from services.embedded.leftovers import PART_MARK, STACK_MARK, marked_processes, remove_shared_memory, sweep
from services.embedded.settings import inherited_environment
from tests.poll import poll_until

_STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


class Sleepers:
    """Starts processes with marks and ends them after the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.id = uuid4().hex

    def start(self, part: str, *command: str) -> subprocess.Popen[bytes]:
        environment = {**inherited_environment(), STACK_MARK: self.id, PART_MARK: part}
        process = subprocess.Popen(command or ("sleep", "60"), env=environment)
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.kill)
        poll_until(lambda: self.pids(part), deadline_s=5)
        return process

    def pids(self, part: str | None = None) -> set[int]:
        return {one.pid for one in marked_processes(self.id, part)}


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    with ExitStack() as stack:
        yield Sleepers(stack)


def test_only_marked_processes_are_found(sleepers: Sleepers) -> None:
    one, other = sleepers.start("one"), sleepers.start("other")
    assert sleepers.pids() == {one.pid, other.pid}
    assert sleepers.pids("one") == {one.pid}
    assert marked_processes("another-stack") == []


def test_a_sweep_of_one_part_spares_the_others(sleepers: Sleepers) -> None:
    sleepers.start("one")
    other = sleepers.start("other")
    assert sweep(sleepers.id, "one") == 1
    assert sleepers.pids() == {other.pid}


def test_a_process_that_ignores_sigterm_is_killed(sleepers: Sleepers) -> None:
    process = sleepers.start("one", sys.executable, "-c", _STUBBORN)
    poll_until(lambda: _ignores_sigterm(process.pid), deadline_s=5)
    assert sweep(sleepers.id, grace_s=0.2) == 1
    assert sleepers.pids() == set()


def test_shared_memory_is_removed_by_prefix() -> None:
    prefix = f"loupe_test_{uuid4().hex[:8]}"
    region = Path("/dev/shm", f"{prefix}_region")
    region.touch()
    remove_shared_memory(prefix)
    assert not region.exists()


def _ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask.split()[1], 16) & 1 << (signal.SIGTERM - 1))
