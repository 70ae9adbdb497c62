"""What reviewers corrected asks for a quick update by itself, once they pause for a moment (arrow 6).

It asks on `loupe.training` like anyone else. The id follows from the latest review, so it is asked for once,
however often and by however many trainers. Does not update (`services.trainer.update`).
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from sqlalchemy import Engine, and_, func, select

from services.adapters.broker import Producer
from services.adapters.clock import Clock
from services.adapters.database import reading
from services.adapters.database.tables import UtcDateTime, dataset_entries, dataset_versions, model_versions
from services.domain.label import Origin, Split
from services.domain.model_version import TrainingRequest, VersionState
from services.trainer.asking import ask, keep_looking
from services.trainer.jobs import Jobs

BY_REVIEW = "review"
LOOK_EVERY_S = 1.0
# Someone who goes through a list of alarms says something every second or two; together they are one update.
QUIET_S = 3.0


class ReviewWatch:
    """Asks for the updates that reviews make due; `run` is the trainer's thread for it."""

    def __init__(self, engine: Engine, jobs: Jobs, producer: Producer, clock: Clock) -> None:
        """Look at the reviews in `engine`, and publish by `producer`."""
        self._engine = engine
        self._jobs = jobs
        self._producer = producer
        self._clock = clock

    def run(self, stopping: threading.Event) -> None:
        """Look every second until told to stop."""
        keep_looking(self.look, "reviews", LOOK_EVERY_S, stopping)

    def look(self) -> tuple[TrainingRequest, ...]:
        """Ask for what is due now, and return it.

        Raises:
            RetryLater: a neighbour is away; the rest is asked for at the next look.
        """
        now, asked = self._clock.now(), []
        for project, last_at in self._reviewed():
            request = TrainingRequest(
                training_id=f"{project}-{BY_REVIEW}-{last_at:%Y%m%d-%H%M%S-%f}",
                project=project,
                requested_at=now,
                author=BY_REVIEW,
                trigger=BY_REVIEW,
                is_update=True,
            )
            if now - last_at < timedelta(seconds=QUIET_S) or self._jobs.knows(request.training_id):
                continue
            # What runs has to end first: it may be the fit that makes the update needless.
            if not self._jobs.is_busy(project):
                ask(request, self._producer, self._jobs)
                asked.append(request)
        return tuple(asked)

    def _reviewed(self) -> list[tuple[str, datetime]]:
        """Return projects with reviews that their newest whole fit did not see, and when the latest came."""
        fit, data = model_versions.c, dataset_versions.c
        # A fit sees what was there when it began to read; one from the command line names no data of ours.
        read_at = func.coalesce(data.seen_at, fit.created_at, type_=UtcDateTime())
        seen_until = (
            select(fit.project, func.max(read_at, type_=UtcDateTime()).label("at"))
            .outerjoin(dataset_versions, and_(data.project == fit.project, data.digest == fit.data_digest))
            .where(fit.state == VersionState.PROMOTED.value, fit.parent == "")
            .group_by(fit.project)
            .subquery()
        )
        table = dataset_entries.c
        # Of what is set aside for testing nothing is learnt, see `QuickUpdate`.
        teaches = table.split.is_distinct_from(Split.TEST.value)
        query = (
            select(table.project, func.max(table.stored_at))
            .join(seen_until, seen_until.c.project == table.project)
            .where(table.origin == Origin.REVIEW.value, teaches, table.stored_at > seen_until.c.at)
            .group_by(table.project)
            .order_by(table.project)
        )
        with reading(self._engine) as connection:
            return [(project, last_at) for project, last_at in connection.execute(query)]
