"""When a project trains by itself: after so many labels, at night, or only on request (arrow 6).

A policy asks on `loupe.training` like anyone else. The ids of its requests follow from what was due, so two
trainers, or one that was killed in between, ask for the same training and it is done once. Does not train.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, delete, func, select, update

from services.adapters.broker import Producer
from services.adapters.clock import Clock
from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import dataset_versions, training_policies
from services.domain.errors import BadRequest
from services.domain.model_version import DEFAULT_OPTIONS, FitOptions, TrainingRequest
from services.domain.project import checked_project_name
from services.trainer.asking import ask, keep_looking
from services.trainer.datasets import Changes, Datasets
from services.trainer.jobs import Jobs

# A person who labels says something every few seconds; a burst of labels makes one training.
QUIET_S = 30.0
# Labels that never pause, a machine's for example, train after this all the same.
LONGEST_WAIT_S = 600.0
LOOK_EVERY_S = 5.0
BY_LABELS, NIGHTLY = "labels", "nightly"
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Policy:
    """When a project trains by itself.

    Attributes:
        after_labels: so many new or changed labels since the last training; None: never for labels.
        nightly_at: `HH:MM`, UTC; None: never by the clock. A night without new labels trains nothing.
        options: of these trainings.
    """

    project: str
    after_labels: int | None
    nightly_at: str | None
    options: FitOptions
    changed_by: str
    changed_at: datetime


def checked_policy(policy: Policy) -> Policy:
    """Return a policy that makes sense.

    Raises:
        BadRequest: it does not; the sentence says why.
    """
    checked_project_name(policy.project)
    if policy.after_labels is not None and policy.after_labels < 1:
        raise BadRequest(f"After {policy.after_labels} labels makes no sense; give 1 or more.")
    if policy.nightly_at is not None and not _TIME_OF_DAY.fullmatch(policy.nightly_at):
        raise BadRequest(
            f"{policy.nightly_at[:40]!r} is no time of day; write HH:MM, UTC, for example 02:30."
        )
    if policy.after_labels is None and policy.nightly_at is None:
        raise BadRequest("A policy needs a number of labels or a time of day.")
    return policy


def request_due(
    policy: Policy, changes: Changes, seen_at: datetime | None, now: datetime
) -> TrainingRequest | None:
    """Return the training that is due, None where none is.

    Args:
        policy: of the project.
        changes: labels since `seen_at`.
        seen_at: when a training last read the project's labels; None: never.
        now: aware UTC time.
    """
    if changes.last_at is None:
        return None  # nothing that the last training did not see
    if policy.after_labels is not None and changes.count >= policy.after_labels:
        # The labels that are due: the same at whatever moment, and by whomever, they are looked at.
        due = _due_labels(changes, policy.after_labels, now)
        if due:
            due += f" {seen_at.isoformat() if seen_at else ''}"
            return _request(policy, BY_LABELS, hashlib.sha256(due.encode()).hexdigest()[:12], now)
    if policy.nightly_at is not None:
        night = _latest_night(policy.nightly_at, now)
        if policy.changed_at < night and (seen_at is None or seen_at < night):
            return _request(policy, NIGHTLY, f"{night:%Y%m%d-%H%M}", now)
    return None


class Policies:
    """The only writer of `training_policies`."""

    def __init__(self, engine: Engine) -> None:
        """Use a migrated database."""
        self._engine = engine

    def put(self, policy: Policy) -> None:
        """Set a project's policy, whatever it was.

        Raises:
            BadRequest: it makes no sense.
        """
        row = asdict(checked_policy(policy))
        with writing(self._engine) as connection:
            connection.execute(insert_or_ignore(connection, training_policies), row)
            connection.execute(
                update(training_policies).where(training_policies.c.project == policy.project).values(row)
            )

    def remove(self, project: str) -> bool:
        """Let a project train on request only; tell whether it had a policy."""
        with writing(self._engine) as connection:
            gone = connection.execute(delete(training_policies).where(training_policies.c.project == project))
        return gone.rowcount > 0

    def all(self) -> tuple[Policy, ...]:
        """Return all policies by project."""
        query = select(training_policies).order_by(training_policies.c.project)
        with reading(self._engine) as connection:
            return tuple(_policy(row) for row in connection.execute(query))

    def last_seen_at(self, project: str) -> datetime | None:
        """Return when a training last read a project's labels, None where none has."""
        query = select(func.max(dataset_versions.c.seen_at)).where(dataset_versions.c.project == project)
        with reading(self._engine) as connection:
            found: datetime | None = connection.execute(query).scalar()
        return found


class PolicyWatch:
    """Asks for the trainings that policies make due; `run` is the trainer's thread for it."""

    def __init__(
        self, policies: Policies, datasets: Datasets, jobs: Jobs, producer: Producer, clock: Clock
    ) -> None:
        """Look at `policies`, and publish by `producer`."""
        self._policies = policies
        self._datasets = datasets
        self._jobs = jobs
        self._producer = producer
        self._clock = clock

    def run(self, stopping: threading.Event) -> None:
        """Look every few seconds until told to stop."""
        keep_looking(self.look, "policies", LOOK_EVERY_S, stopping)

    def look(self) -> tuple[TrainingRequest, ...]:
        """Ask for what is due now, and return it.

        Raises:
            RetryLater: a neighbour is away; the rest is asked for at the next look.
        """
        asked = []
        for policy in self._policies.all():
            # One that waits will read all labels that there are; one that runs has to end first.
            if self._jobs.is_busy(policy.project):
                continue
            seen_at = self._policies.last_seen_at(policy.project)
            changes = self._datasets.changes(policy.project, seen_at)
            request = request_due(policy, changes, seen_at, self._clock.now())
            if request is not None and not self._jobs.knows(request.training_id):
                ask(request, self._producer, self._jobs)
                asked.append(request)
        return tuple(asked)


def _request(policy: Policy, trigger: str, what: str, now: datetime) -> TrainingRequest:
    return TrainingRequest(
        training_id=f"{policy.project}-{trigger}-{what}",
        project=policy.project,
        requested_at=now,
        author=policy.changed_by,
        options=policy.options,
        trigger=trigger,
    )


def _due_labels(changes: Changes, after_labels: int, now: datetime) -> str:
    """Return what names enough labels that have paused, or that were waited for long; empty: not yet."""
    if changes.last_at is not None and now - changes.last_at >= timedelta(seconds=QUIET_S):
        return f"{changes.count} {changes.last_at.isoformat()}"
    if changes.first_at is not None and now - changes.first_at >= timedelta(seconds=LONGEST_WAIT_S):
        return f"{changes.count // after_labels} {changes.first_at.isoformat()}"
    return ""


def _latest_night(time_of_day: str, now: datetime) -> datetime:
    """Return the latest moment not after `now` with that time of day, UTC."""
    hours, minutes = map(int, time_of_day.split(":"))
    today = now.astimezone(UTC).replace(hour=hours, minute=minutes, second=0, microsecond=0)
    return today if today <= now else today - timedelta(days=1)


def _policy(row: Row[Any]) -> Policy:
    return Policy(
        project=row.project,
        after_labels=row.after_labels,
        nightly_at=row.nightly_at,
        options=options_of(row.options),
        changed_by=row.changed_by,
        changed_at=row.changed_at,
    )


def options_of(values: dict[str, Any]) -> FitOptions:
    """Return options as they were before JSON; what is not there has its default."""
    known = {**asdict(DEFAULT_OPTIONS), **values}
    return FitOptions(**{**known, "families": tuple(known["families"])})
