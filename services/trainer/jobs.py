"""The life of training requests: queued, running, done or failed, with a sentence (arrow 6).

What makes a request train once: a job that is done stays done. A job found running belongs to a
trainer that was killed, and is run again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Engine, select, update

from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import training_jobs
from services.domain.errors import UnknownObject
from services.domain.model_version import JobState, TrainingRequest

# The column's length; a sentence beyond it is cut.
_LONGEST_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Job:
    """How a training request stands.

    Attributes:
        message: why it failed, or what came out.
        version: the model version it led to.
    """

    training_id: str
    project: str
    state: JobState
    message: str
    version: str | None
    requested_at: datetime
    ended_at: datetime | None


class Jobs:
    """The only writer of `training_jobs`."""

    def __init__(self, engine: Engine) -> None:
        """Use a migrated database."""
        self._engine = engine

    def queue(self, request: TrainingRequest) -> Job:
        """Make a job of a request, unless there is one of that id; return how it stands."""
        row = {
            "training_id": request.training_id,
            "project": request.project,
            "state": JobState.QUEUED.value,
            "message": "",
            "version": None,
            "requested_at": request.requested_at,
            "ended_at": None,
        }
        with writing(self._engine) as connection:
            connection.execute(insert_or_ignore(connection, training_jobs), row)
        return self.get(request.training_id)

    def get(self, training_id: str) -> Job:
        """Return a job.

        Raises:
            UnknownObject: there is none of that id.
        """
        columns = [training_jobs.c[one.name] for one in fields(Job)]
        query = select(*columns).where(training_jobs.c.training_id == training_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            raise UnknownObject(f"There is no training {training_id}.", training_id=training_id)
        return Job(**{**row._asdict(), "state": JobState(row.state)})

    def run(self, training_id: str) -> None:
        """Say that somebody works on it."""
        self._set(training_id, JobState.RUNNING, "")

    def finish(self, training_id: str, version: str, message: str, at: datetime) -> None:
        """Say what came out."""
        self._set(training_id, JobState.DONE, message, version=version, at=at)

    def fail(self, training_id: str, reason: str, at: datetime) -> None:
        """Say why nothing came out."""
        self._set(training_id, JobState.FAILED, reason, at=at)

    def _set(
        self,
        training_id: str,
        state: JobState,
        message: str,
        *,
        version: str | None = None,
        at: datetime | None = None,
    ) -> None:
        statement = (
            update(training_jobs)
            .where(training_jobs.c.training_id == training_id)
            .values(state=state.value, message=message[:_LONGEST_MESSAGE], version=version, ended_at=at)
        )
        with writing(self._engine) as connection:
            connection.execute(statement)
