"""Runs the cameras of the database in one process: a thread each, none in another's way (arrow 1).

A look a second: read what is configured, start, stop and restart what changed, note how each camera does,
renew the leases. A camera in trouble holds no place and is tried again after 1 s, doubling to a minute and
more; one whose thread does not end is `hanging` and is not replaced before it has. While a camera runs its
state comes from `camera_health`, else from how its run ended.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from threading import Event

from services.adapters.clock import Clock
from services.adapters.metrics import Metrics
from services.domain.camera import CameraState
from services.domain.errors import DatabaseUnavailable
from services.domain.metrics import CAMERA_LAST_FRAME_SECONDS, CAMERA_STATE
from services.ingest.camera_health import CameraHealth, Told
from services.ingest.camera_rows import CameraReport, StoredCamera
from services.ingest.camera_run import CameraRun, RunCamera
from services.ingest.camera_store import CameraStore
from services.wire.camera_event import CameraChange

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
# People look at states, and leases last ten times as long.
UPKEEP_EVERY_S = 3.0
# In an outage of the database leases run out, and who has them goes on filming. So that no camera is filmed
# twice those renew first: within a look that waits for the database (10 s), and an upkeep.
OTHERS_FIRST_S = 15.0
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
# With thousands of cameras in trouble the pause grows, so that trying costs no more than this.
RETRIES_PER_S = 20.0
# A thread start and a failed opening take about a millisecond; new cameras come before retries, and while
# there are more of them looks follow each other sooner.
STARTS_PER_LOOK = 256
_LOOK_AGAIN_S = 0.25
# A run that went well for this long has earned quick retries again.
WELL_AFTER_S = 60.0
# Sources give a sign twice a second; opening one (a camera that does not answer, a full bucket) takes longer.
HANGING_AFTER_S, OPENING_S = 20.0, 60.0
STOP_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Scope:
    """What one ingester may run.

    Attributes:
        ingester: its id, stable over restarts.
        max_cameras: places: cameras that run at once.
        patterns: ids of cameras that may run here, with `*` and `?`; one without them is wanted here.
    """

    ingester: str
    max_cameras: int = 256
    patterns: tuple[str, ...] = ("*",)

    def is_mine(self, camera: str) -> bool:
        """Tell whether a camera may run here."""
        return any(fnmatchcase(camera, pattern) for pattern in self.patterns)

    @property
    def named(self) -> frozenset[str]:
        """Cameras that were named one by one."""
        return frozenset(one for one in self.patterns if not set("*?[") & set(one))


@dataclass
class _Held:
    """A camera whose lease this ingester has."""

    stored: StoredCamera
    report: CameraReport
    run: CameraRun | None = None
    health: CameraHealth | None = None
    attempts: int = 0
    due_s: float = 0.0
    is_changed: bool = True
    is_lost: bool = False

    @property
    def name(self) -> str:
        return self.stored.camera.camera

    @property
    def has_place(self) -> bool:
        return self.run is not None and self.report.state is not CameraState.HANGING


class Supervisor:
    """See the module; `look` and `close` are called by one thread."""

    def __init__(
        self,
        store: CameraStore,
        scope: Scope,
        run: RunCamera,
        tell: Callable[[CameraChange], None],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Hold nothing yet; leases of a process of the same id that ran before are ended."""
        self._store, self._scope, self._run, self._tell_event = store, scope, run, tell
        self._clock, self._metrics = clock, metrics
        self._jitter = random.Random()  # noqa: S311 - spreads retries
        self._version: object = None
        self.configured: dict[str, StoredCamera] = {}
        self._held: dict[str, _Held] = {}
        self._elsewhere: dict[str, CameraReport] = {}
        self._let_go: list[CameraReport] = []
        self.looked_s = clock.monotonic_s()
        self._upkeep_s = -math.inf
        self._is_database_away = False
        # When free leases may be taken again after an outage.
        self._takes_from_s = -math.inf
        self._has_begun = False
        self._in_trouble = 0

    def run(self, stop: Event) -> None:
        """Look every second until `stop` is set; what goes wrong with the database is tried again."""
        while not stop.is_set():
            has_more = self.look()
            stop.wait(_LOOK_AGAIN_S if has_more else LOOK_EVERY_S)

    def reports(self) -> dict[str, CameraReport]:
        """Return how the cameras of this ingester do, by id."""
        mine = {name: held.report for name, held in list(self._held.items())}
        return dict(sorted((self._elsewhere | mine).items()))

    def runs(self, camera: str) -> bool:
        """Tell whether a camera runs here now."""
        held = self._held.get(camera)
        return held is not None and held.run is not None and held.run.stop_asked_s is None

    def look(self) -> bool:
        """Do what is due now; tell whether more new cameras wait than were started."""
        now_s = self.looked_s = self._clock.monotonic_s()
        try:
            self._read_configuration()
            has_more = self._look_at_all(now_s, takes_more=now_s >= self._takes_from_s)
            if now_s - self._upkeep_s >= UPKEEP_EVERY_S:
                self._upkeep_s = now_s
                self._keep_leases()
        except DatabaseUnavailable as error:
            # Cameras run on, and start again: pixels that are not taken now never come back.
            if not self._is_database_away:
                logger.error("cameras run on without the database: %s", error.message)  # noqa: TRY400
            self._is_database_away = True
            self._takes_from_s = math.inf
            return self._look_at_all(self._clock.monotonic_s(), takes_more=False)
        if self._is_database_away:
            logger.info("the database answers again")
            self._is_database_away, self._takes_from_s = False, now_s + OTHERS_FIRST_S
        return has_more

    def _look_at_all(self, now_s: float, *, takes_more: bool) -> bool:
        self._in_trouble = sum(held.attempts > 0 and held.run is None for held in self._held.values())
        for held in list(self._held.values()):
            self._look_at(held, now_s)
        return self._start_due(now_s, takes_more=takes_more)

    def close(self, timeout_s: float) -> None:
        """Stop all cameras, for `timeout_s` at most, and end their leases."""
        runs = [held.run for held in self._held.values() if held.run]
        for run in runs:
            run.ask_to_stop()
        end_s = self._clock.monotonic_s() + timeout_s
        for run in runs:
            run.join(max(0.0, end_s - self._clock.monotonic_s()))
        now_s = self._clock.monotonic_s()
        for held in list(self._held.values()):
            if held.run:
                self._count(held, held.run)
                if not held.run.is_over:
                    logger.error("camera %s does not stop; it ends with the process", held.name)
                elif held.run.outcome:
                    self._end(held, held.run, now_s)
        try:
            self._store.let_go(
                self._scope.ingester, [*self._let_go, *(held.report for held in self._held.values())]
            )
        except DatabaseUnavailable as error:
            logger.warning("the leases run out by themselves: %s", error.message)

    # --- configuration and leases

    def _read_configuration(self) -> None:
        if not self._has_begun:
            self._store.let_all_go(self._scope.ingester)
            self._has_begun = True
        version = self._store.version()
        if version != self._version:
            self.configured = self._store.cameras()
            self._version = version

    def _keep_leases(self) -> None:
        """Renew leases and tell states in one write; stop what another ingester has taken."""
        changed = [held for held in self._held.values() if held.is_changed and not held.is_lost]
        if self._held:
            mine = self._store.renew(self._scope.ingester, [held.report for held in changed])
            for held in changed:
                held.is_changed = False
            for name, held in list(self._held.items()):
                if name not in mine and not held.is_lost:
                    logger.warning("camera %s is run by another ingester now", name)
                    held.is_lost = True
        if self._let_go:
            self._store.let_go(self._scope.ingester, self._let_go)
            self._let_go = []
        self._note_elsewhere()
        for held in self._held.values():
            if held.report.last_frame_at:
                age_s = (self._clock.now() - held.report.last_frame_at).total_seconds()
                self._metrics.set(CAMERA_LAST_FRAME_SECONDS, age_s, camera=held.name)

    def _note_elsewhere(self) -> None:
        """Tell of cameras that were named for this ingester and that another one runs."""
        wanted = {name for name in self._scope.named if name in self.configured and name not in self._held}
        if not wanted and not self._elsewhere:
            return
        holders = self._store.holders(wanted)
        for name in self._elsewhere.keys() - holders.keys():
            del self._elsewhere[name]
            self._gauge(name, CameraState.HELD_ELSEWHERE, None)
        for name in holders.keys() - self._elsewhere.keys():
            message = f"Ingester {holders[name]} runs it."
            logger.warning("camera %s: %s", name, message)
            state = CameraState.HELD_ELSEWHERE
            self._elsewhere[name] = CameraReport(name, state, message, self._clock.now())
            self._gauge(name, None, state)

    # --- one camera

    def _look_at(self, held: _Held, now_s: float) -> None:
        wanted, run = self.configured.get(held.name), held.run
        is_to_run = wanted is not None and not wanted.camera.is_paused and not held.is_lost
        if wanted is not None and _is_only_another_token(held.stored, wanted):
            held.stored = wanted
        is_other = wanted is not None and wanted.changed_at != held.stored.changed_at
        if run is None:
            if wanted is None or not is_to_run or held.report.state is CameraState.ENDED:
                self._give_up(held, wanted)
            elif is_other:
                held.stored, held.attempts, held.due_s = wanted, 0, now_s
            return
        if not is_to_run or is_other:
            run.ask_to_stop()
        self._count(held, run)
        if run.is_over:
            self._end(held, run, now_s)
            self._look_at(held, now_s)
        elif run.stop_asked_s is not None:
            if now_s - run.stop_asked_s > STOP_WITHIN_S:
                self._tell(
                    held, Told(CameraState.HANGING, "It does not stop; it is started anew when it has.")
                )
        elif now_s - run.seen_s > (HANGING_AFTER_S if run.progress else OPENING_S):
            self._tell(held, Told(CameraState.HANGING, "It gives no sign; it is stopped and started anew."))
            run.ask_to_stop()
        elif run.progress and held.health:
            self._tell(held, held.health.see(run.progress, now_s))

    def _end(self, held: _Held, run: CameraRun, now_s: float) -> None:
        """Take note of the end of a run, and say when the next one is due."""
        held.run = held.health = None
        outcome, was_well = run.outcome, run.progress is not None and now_s - run.started_s > WELL_AFTER_S
        if run.stop_asked_s is not None and held.report.state is not CameraState.HANGING:
            held.attempts, held.due_s = 0, now_s
            return
        if outcome and held.report.state is not CameraState.HANGING:
            self._tell(held, outcome.told)
            if outcome.is_final:
                held.due_s = math.inf
                return
        held.attempts = 1 if was_well else held.attempts + 1
        held.due_s = now_s + self._pause_s(held.attempts)

    def _pause_s(self, attempts: int) -> float:
        pause_s = min(FIRST_RETRY_S * 2.0 ** min(attempts - 1, 10), LAST_RETRY_S)
        if attempts > 1:
            pause_s = max(pause_s, self._in_trouble / RETRIES_PER_S)
        return pause_s * self._jitter.uniform(0.8, 1.2)

    def _give_up(self, held: _Held, wanted: StoredCamera | None) -> None:
        """Let a camera go that is not to run here: paused, removed, ended, or taken by another ingester."""
        del self._held[held.name]
        self._metrics.forget(CAMERA_LAST_FRAME_SECONDS, camera=held.name)
        if held.is_lost:
            self._gauge(held.name, held.report.state, None)
            return
        if wanted is not None and wanted.camera.is_paused:
            held.stored = wanted
            self._tell(held, Told(CameraState.PAUSED))
        self._let_go.append(held.report)
        self._gauge(held.name, held.report.state, None)
        self._upkeep_s = -math.inf

    def _start_due(self, now_s: float, *, takes_more: bool) -> bool:
        """Start cameras as far as there are places: a quarter of them retries at most while new ones wait.

        Args:
            now_s: monotonic time.
            takes_more: lease cameras that nobody has.

        Returns:
            Whether there may be more new ones.
        """
        free = self._scope.max_cameras - sum(held.has_place for held in self._held.values())
        budget = min(free, STARTS_PER_LOOK)
        if budget <= 0:
            return False
        due = sorted(
            (held for held in self._held.values() if held.run is None and held.due_s <= now_s),
            key=lambda held: held.due_s,
        )
        room = max(budget - len(due), budget - budget // 4) if takes_more else 0
        taken = self._store.take(self._scope.ingester, room, self._may_take) if room else {}
        if taken.keys() - self.configured.keys():
            # Added since the configuration was read.
            self.configured, self._version = self._store.cameras(), None
        new = [
            _Held(self.configured[name], report) for name, report in taken.items() if name in self.configured
        ]
        self._held |= {held.name: held for held in new}
        for held in [*new, *due][:budget]:
            self._start(held, now_s)
        return takes_more and len(taken) == room

    def _may_take(self, camera: str) -> bool:
        """Tell whether to lease a camera: one that was lost may still have its last run here."""
        return camera not in self._held and self._scope.is_mine(camera)

    def _start(self, held: _Held, now_s: float) -> None:
        known = Told(held.report.state, held.report.message)
        held.health = CameraHealth(held.stored.camera, known, now_s)
        held.run = CameraRun(held.stored, self._run, self._clock.monotonic_s)
        self._tell(held, held.health.told)
        held.run.start()

    # --- what is told

    def _count(self, held: _Held, run: CameraRun) -> None:
        """Take the counters of a run into the camera's report."""
        told = run.progress
        if told is None or not told.epoch:
            return
        before = held.report
        has_new = told.captured > (before.captured if told.epoch == before.epoch else 0)
        counted = replace(
            before, epoch=told.epoch, captured=told.captured, acknowledged=told.acknowledged, shed=told.shed,
            spooled=told.spooled_frames, fps=round(told.fps, 2),
            last_frame_at=self._clock.now() if has_new else before.last_frame_at,
        )  # fmt: skip
        if counted != before:
            held.report, held.is_changed = counted, True

    def _tell(self, held: _Held, told: Told) -> None:
        """Say which state a camera is in; a change is an event where people should hear of it."""
        before, configured_at = held.report, held.stored.changed_at
        if (before.state, before.message, before.configured_at) == (told.state, told.message, configured_at):
            return
        held.is_changed = True
        held.report = replace(
            before, state=told.state, message=told.message, configured_at=configured_at,
            since=before.since if told.state is before.state else self._clock.now(),
        )  # fmt: skip
        if told.state is not before.state:
            self._gauge(held.name, before.state, told.state)
            self._tell_event(
                CameraChange(
                    held.name, told.state, told.message, held.report.since, before.state, self._scope.ingester
                )
            )

    def _gauge(self, camera: str, before: CameraState | None, now: CameraState | None) -> None:
        if before:
            self._metrics.forget(CAMERA_STATE, camera=camera, state=before.value)
        if now:
            self._metrics.set(CAMERA_STATE, 1, camera=camera, state=now.value)


def _is_only_another_token(held: StoredCamera, wanted: StoredCamera) -> bool:
    """Tell whether only the door has to know of a change: it reads tokens from what is configured."""
    if held.push_token_sha256 == wanted.push_token_sha256:
        return False
    return held == replace(wanted, push_token_sha256=held.push_token_sha256, changed_at=held.changed_at)
