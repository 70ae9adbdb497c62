"""The desired state in the database: who is hosted with what, by whose wish, and what came of it.

The only writer of `hostings`; routes are `route_store`'s. Does not talk to Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from services.adapters.database import reading, writing
from services.adapters.database.tables import UtcDateTime, hostings, model_versions
from services.domain.hosting import Hosting, HostingStatus
from services.domain.model_version import ModelAnnouncement, VersionState

# Versions from before there were candidates have no time of decision; they served from their making on.
_PROMOTED_AT = func.coalesce(model_versions.c.decided_at, model_versions.c.created_at, type_=UtcDateTime())
_IS_PROMOTED = model_versions.c.state == VersionState.PROMOTED.value
# The column's length; a longer message of Ray is cut.
_LONGEST_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Wish:
    """What one project is to have from now on.

    Attributes:
        by: who wished it.
        refused: why it cannot be had for now; empty if it can.
    """

    hosting: Hosting
    by: str
    refused: str = ""


@dataclass(frozen=True, slots=True)
class HostedProject:
    """A wish and what came of it.

    Attributes:
        message: why it is not hosted, for people.
        changed_by: who wished it.
        model_promoted_at: since when its model version is the one to serve; None for one the registry does
            not know.
    """

    hosting: Hosting
    status: HostingStatus
    message: str
    changed_by: str
    changed_at: datetime
    model_promoted_at: datetime | None


@dataclass(frozen=True, slots=True)
class PromotedModel:
    """A version that may serve, and since when it is the one to serve."""

    announcement: ModelAnnouncement
    promoted_at: datetime


class HostingStore:
    """Desired state and status of all projects."""

    def __init__(self, engine: Engine) -> None:
        """Use a migrated database."""
        self._engine = engine

    def hosted(self) -> tuple[HostedProject, ...]:
        """Return all wishes; those that are not refused first, then by the time of the wish."""
        with reading(self._engine) as connection:
            return _hosted(connection)

    def newest_models(self) -> tuple[PromotedModel, ...]:
        """Return the version of every project that was promoted last, the latest promotion first."""
        query = (
            select(model_versions, _PROMOTED_AT.label("promoted_at"))
            .where(_IS_PROMOTED)
            .order_by(
                _PROMOTED_AT.desc(), model_versions.c.created_at.desc(), model_versions.c.version.desc()
            )
        )
        newest: dict[str, PromotedModel] = {}
        with reading(self._engine) as connection:
            for row in connection.execute(query):
                newest.setdefault(row.project, PromotedModel(_announcement(row), row.promoted_at))
        return tuple(newest.values())

    def promoted_at(self, said: ModelAnnouncement) -> datetime | None:
        """Return since when a version is the one to serve; None where it was not promoted.

        Of a version that the registry does not know, somebody else's, that is its making.
        """
        query = select(model_versions.c.state, _PROMOTED_AT.label("promoted_at")).where(
            model_versions.c.project == said.project, model_versions.c.version == said.version
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            return said.created_at
        return row.promoted_at if row.state == VersionState.PROMOTED.value else None

    def wish(self, wishes: Sequence[Wish], at: datetime) -> None:
        """Set the desired state of some projects, all or none of them."""
        with writing(self._engine) as connection:
            for wish in wishes:
                status = HostingStatus.HOSTING_FAILED if wish.refused else HostingStatus.STARTING_HOSTING
                values = {
                    **asdict(wish.hosting),
                    "status": status.value,
                    "message": wish.refused,
                    "changed_by": wish.by,
                    "changed_at": at,
                }
                same = hostings.c.project == wish.hosting.project
                if connection.execute(update(hostings).where(same).values(values)).rowcount == 0:
                    connection.execute(insert(hostings).values(values))

    def note(self, project: str, status: HostingStatus, message: str) -> None:
        """Say what came of a wish."""
        statement = (
            update(hostings)
            .where(hostings.c.project == project)
            .values(status=status.value, message=message[:_LONGEST_MESSAGE])
        )
        with writing(self._engine) as connection:
            connection.execute(statement)


def _hosted(connection: Connection) -> tuple[HostedProject, ...]:
    version = (model_versions.c.project == hostings.c.project) & (
        model_versions.c.version == hostings.c.version
    )
    # A project that waits for units must not overtake one that serves and gets a new version.
    refused = hostings.c.status == HostingStatus.HOSTING_FAILED.value
    query = (
        select(hostings, _PROMOTED_AT.label("model_promoted_at"))
        .outerjoin(model_versions, version)
        .order_by(refused, hostings.c.changed_at, hostings.c.project)
    )
    return tuple(
        HostedProject(
            hosting=Hosting(row.project, row.version, row.uri, row.min_units, row.max_units),
            status=HostingStatus(row.status),
            message=row.message,
            changed_by=row.changed_by,
            changed_at=row.changed_at,
            model_promoted_at=row.model_promoted_at,
        )
        for row in connection.execute(query)
    )


def _announcement(row: Row[Any]) -> ModelAnnouncement:
    return ModelAnnouncement(
        row.project, row.version, row.uri, row.manifest_sha256, row.created_at, row.training_id
    )
