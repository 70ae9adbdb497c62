"""One `up`: start programs in dependency order, as many at once as that allows, and wait for each.

The first failure gives up the rest. Does not clean up after a failure; `stack` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from threading import Event
from typing import Protocol

from services.domain.errors import LoupeError, StopProcess
from services.embedded.contents import migrate_database
from services.embedded.home import Home
from services.embedded.programs import DATABASE, Program
from services.embedded.supervision import ProcessInfo, last_words

_POLL_S = 0.15
# So often may a part die while it starts before `up` gives up on it.
_DEATHS_TO_GIVE_UP = 3


class Phase(StrEnum):
    """What happens to a part."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class StackEvent:
    """Progress of one part.

    Attributes:
        seconds: from its start, for READY.
    """

    part: str
    phase: Phase
    seconds: float = 0.0


OnEvent = Callable[[StackEvent], None]


class Starter(Protocol):
    """What `BringUp` asks of the supervisor."""

    def start_program(self, name: str) -> None:
        """Start a program; does nothing when it runs."""

    def processes(self) -> Mapping[str, ProcessInfo]:
        """Return what runs, by name."""


class BringUp:
    """Starts the chosen programs of one home.

    Args:
        supervisor: alive.
        chosen: programs by name; one that waits for a program not chosen does not wait for it.
        on_event: called from several threads.
    """

    def __init__(
        self, home: Home, supervisor: Starter, chosen: Mapping[str, Program], on_event: OnEvent
    ) -> None:
        self._home = home
        self._supervisor = supervisor
        self._chosen = chosen
        self._on_event = on_event
        self._ready = {name: Event() for name in (*chosen, DATABASE)}
        self._give_up = Event()
        self._took_s: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        """Start everything; returns seconds from start to ready of what did not run before.

        Raises:
            LoupeError: why the first part that failed did.
        """
        with ThreadPoolExecutor(max_workers=len(self._ready)) as pool:
            jobs = [pool.submit(self._step, DATABASE, (), self._migrate)]
            for one in self._chosen.values():
                jobs.append(pool.submit(self._step, one.name, one.after, partial(self._start, one)))
            try:
                wait(jobs)
            finally:
                self._give_up.set()
        for job in jobs:
            job.result()
        return self._took_s

    def _step(self, name: str, after: tuple[str, ...], work: Callable[[], None]) -> None:
        for earlier in after:
            while earlier in self._ready and not self._ready[earlier].wait(_POLL_S):
                if self._give_up.is_set():
                    return
        try:
            work()
        except BaseException:
            self._give_up.set()
            self._on_event(StackEvent(name, Phase.FAILED))
            raise
        self._ready[name].set()

    def _migrate(self) -> None:
        if any(DATABASE in program.after for program in self._chosen.values()):
            migrate_database(self._home.database_url)

    def _start(self, program: Program) -> None:
        self._on_event(StackEvent(program.name, Phase.STARTING))
        program.prepare()
        started_s = time.monotonic()
        was_running = self._supervisor.processes()[program.name].pid is not None
        self._supervisor.start_program(program.name)
        if not self._wait_until_ready(program):
            return
        seconds = time.monotonic() - started_s
        program.finish()
        if not was_running:
            self._took_s[program.name] = round(seconds, 2)
        self._on_event(StackEvent(program.name, Phase.READY, seconds))

    def _wait_until_ready(self, program: Program) -> bool:
        """Poll the probe; False when another part failed meanwhile.

        Raises:
            StopProcess: it died again and again, or is not ready in time.
        """
        end_monotonic_s = time.monotonic() + program.deadline_s
        starts: set[int] = set()
        while not program.is_ready():
            if self._give_up.wait(_POLL_S):
                return False
            info = self._supervisor.processes().get(program.name)
            starts.add(info.started_unix_s if info else 0)
            is_hopeless = info is None or info.state == "FATAL" or len(starts) > _DEATHS_TO_GIVE_UP
            if is_hopeless or time.monotonic() > end_monotonic_s:
                raise self._failure(program, is_hopeless=is_hopeless)
        return True

    def _failure(self, program: Program, *, is_hopeless: bool) -> LoupeError:
        what = "dies while it starts" if is_hopeless else f"is not ready after {program.deadline_s:.0f} s"
        words = last_words(self._home, program.name)
        return StopProcess(f"{program.name} {what}. Its log ends:\n{words}", part=program.name)
