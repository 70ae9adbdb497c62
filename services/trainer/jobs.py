"""The life of training requests: queued, running, done, failed or cancelled (arrow 6).

What makes a request train once: a job that is done stays done. A job found running belongs to a
trainer that was killed, and is run again. A cancelled job never publishes: every change is one
statement that asks for the state it needs, so a person and a trainer cannot both win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select, update

from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import training_jobs
from services.domain.errors import BadRequest, UnknownObject
from services.domain.model_version import JobState, TrainingRequest

# From here on a version may be served, and a job can no longer be cancelled.
PROMOTING = "promote"
# The columns' lengths; what is beyond them is cut.
_LONGEST_MESSAGE, _LONGEST_NAME, _LONGEST_TRIGGER = 1024, 256, 16
_OPEN = (JobState.QUEUED.value, JobState.RUNNING.value)
# In hand, or asked for again after it failed.
_STARTABLE = (*_OPEN, JobState.FAILED.value)


@dataclass(frozen=True, slots=True)
class Job:
    """How a training request stands.

    Attributes:
        message: why it failed, or what came out.
        version: the model version it led to.
        trigger: who or what asked; see `TrainingRequest`.
        options: of the fit, as JSON values.
        stage: what a running one does.
        done_ratio: of the whole training (0-1).
        eta_s: seconds to its end, counted from `told_at`; None: not known yet.
        told_at: when that was told.
        memory_bytes: estimated before the start.
        cancelled_by: who called it off.
    """

    training_id: str
    project: str
    state: JobState
    message: str
    version: str | None
    requested_at: datetime
    ended_at: datetime | None
    author: str
    trigger: str
    options: Mapping[str, Any]
    stage: str
    done_ratio: float
    eta_s: float | None
    told_at: datetime | None
    memory_bytes: int | None
    cancelled_by: str | None

    @property
    def is_open(self) -> bool:
        """Tell whether something may still come of it."""
        return self.state.value in _OPEN


class Jobs:
    """The only writer of `training_jobs`."""

    def __init__(self, engine: Engine) -> None:
        """Use a migrated database."""
        self._engine = engine

    def queue(self, request: TrainingRequest) -> Job:
        """Make a job of a request, unless there is one of that id; return how it stands.

        Raises:
            BadRequest: its id cannot be one.
        """
        if len(request.training_id) > _LONGEST_NAME or not request.training_id.isprintable():
            raise BadRequest(f"A training's id is at most {_LONGEST_NAME} printable characters.")
        row = {
            "training_id": request.training_id,
            "project": request.project,
            "state": JobState.QUEUED.value,
            "message": "",
            "version": None,
            "requested_at": request.requested_at,
            "ended_at": None,
            "author": request.author[:_LONGEST_NAME],
            "trigger": request.trigger[:_LONGEST_TRIGGER],
            "options": asdict(request.options),
        }
        with writing(self._engine) as connection:
            connection.execute(insert_or_ignore(connection, training_jobs), row)
        return self.get(request.training_id)

    def get(self, training_id: str) -> Job:
        """Return a job.

        Raises:
            UnknownObject: there is none of that id.
        """
        found = self._select(training_jobs.c.training_id == training_id)
        if not found:
            raise UnknownObject(f"There is no training {training_id}.", training_id=training_id)
        return found[0]

    def all(self, project: str | None = None) -> tuple[Job, ...]:
        """Return all jobs, or those of a project, in the order they were asked for."""
        return self._select(*([] if project is None else [training_jobs.c.project == project]))

    def knows(self, training_id: str) -> bool:
        """Tell whether there is a job of that id, in whatever state."""
        return bool(self._select(training_jobs.c.training_id == training_id))

    def is_busy(self, project: str) -> bool:
        """Tell whether a training of a project waits or runs."""
        return bool(self._select(training_jobs.c.project == project, training_jobs.c.state.in_(_OPEN)))

    def run(self, training_id: str, stage: str = "") -> bool:
        """Say that somebody works on it, from a stage on; return False if it is cancelled or done."""
        begun = {"state": JobState.RUNNING.value, "message": "", "ended_at": None, "stage": stage}
        return self._change(
            training_id, _STARTABLE, {**begun, "done_ratio": 0.0, "eta_s": None, "told_at": None}
        )

    def tell(
        self, training_id: str, stage: str, done_ratio: float, eta_s: float | None, at: datetime
    ) -> bool:
        """Say how far it is; return False if it was cancelled meanwhile."""
        told = {"stage": stage, "done_ratio": done_ratio, "eta_s": eta_s, "told_at": at}
        return self._change(training_id, (JobState.RUNNING.value,), told)

    def need(self, training_id: str, memory_bytes: int) -> None:
        """Note how much memory it is going to take."""
        self._change(training_id, (JobState.RUNNING.value,), {"memory_bytes": memory_bytes})

    def finish(self, training_id: str, version: str, message: str, at: datetime) -> None:
        """Say what came out."""
        ended = _ended(JobState.DONE, message, at)
        self._change(training_id, _STARTABLE, {**ended, "version": version, "done_ratio": 1.0, "eta_s": 0.0})

    def fail(self, training_id: str, reason: str, at: datetime) -> None:
        """Say why nothing came out; one that was cancelled stays so."""
        self._change(training_id, _STARTABLE, {**_ended(JobState.FAILED, reason, at), "version": None})

    def cancel(self, training_id: str, by: str, at: datetime) -> Job:
        """Call a training off; one that waits never starts, one that runs is ended by its trainer.

        Raises:
            UnknownObject: there is none of that id.
            BadRequest: it has ended, or its version is being promoted.
        """
        ended = {**_ended(JobState.CANCELLED, f"Cancelled by {by}.", at), "cancelled_by": by, "eta_s": None}
        with writing(self._engine) as connection:
            done = connection.execute(
                update(training_jobs)
                .where(
                    training_jobs.c.training_id == training_id,
                    training_jobs.c.state.in_(_OPEN),
                    training_jobs.c.stage != PROMOTING,
                )
                .values(ended)
            )
        job = self.get(training_id)
        if done.rowcount == 0 and job.is_open:
            raise BadRequest(f"Training {training_id} is being promoted; it is too late to cancel it.")
        if done.rowcount == 0 and job.state is not JobState.CANCELLED:
            raise BadRequest(f"Training {training_id} is {job.state} already.", state=job.state.value)
        return job

    def _select(self, *wanted: Any) -> tuple[Job, ...]:
        columns = [training_jobs.c[one.name] for one in fields(Job)]
        query = (
            select(*columns).where(*wanted)
            .order_by(training_jobs.c.requested_at, training_jobs.c.training_id)
        )  # fmt: skip
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return tuple(Job(**{**row._asdict(), "state": JobState(row.state)}) for row in rows)

    def _change(self, training_id: str, states: tuple[str, ...], values: Mapping[str, Any]) -> bool:
        """Change a job that is in one of the states; tell whether it was."""
        statement = (
            update(training_jobs)
            .where(training_jobs.c.training_id == training_id, training_jobs.c.state.in_(states))
            .values(dict(values))
        )
        with writing(self._engine) as connection:
            return connection.execute(statement).rowcount == 1


def _ended(state: JobState, message: str, at: datetime) -> dict[str, Any]:
    return {"state": state.value, "message": message[:_LONGEST_MESSAGE], "ended_at": at}
