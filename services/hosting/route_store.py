"""Routes in the database: which camera goes to which project, since when and by whose wish (arrow 7).

The only writer of `routes`; several may write at once, each change is one row and one transaction. The
reconciler reads them every second and tells the stream. Does not talk to Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from math import inf
from typing import Any

from sqlalchemy import Engine, Row, delete, select, update
from sqlalchemy.sql import ColumnElement

from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import routes
from services.domain.errors import BadRequest
from services.domain.hosting import ArchivePolicy, RetentionClass, Route, RouteMode
from services.domain.project import checked_project_name

# The column's length.
_LONGEST_PATTERN = 256


@dataclass(frozen=True, slots=True)
class StoredRoute:
    """A route, and who set it when; None for one that is older than this was noted."""

    route: Route
    changed_by: str
    changed_at: datetime | None


class RouteStore:
    """All routes."""

    def __init__(self, engine: Engine) -> None:
        """Use a migrated database."""
        self._engine = engine

    def all(self) -> tuple[StoredRoute, ...]:
        """Return the routes that are set, in no promised order.

        Raises:
            DatabaseUnavailable: no answer.
        """
        with reading(self._engine) as connection:
            found = connection.execute(select(routes)).all()
        return tuple(StoredRoute(_route(row), row.changed_by, row.changed_at) for row in found)

    def add(self, route: Route, by: str, at: datetime) -> None:
        """Set a route that is not there yet.

        Raises:
            BadRequest: it makes no sense, or there is one of that pattern, project and mode.
            DatabaseUnavailable: no answer; nothing was changed.
        """
        checked_route(route)
        row = {**_values(asdict(route)), "changed_by": by, "changed_at": at}
        with writing(self._engine) as connection:
            insert = insert_or_ignore(connection, routes).returning(routes.c.camera_pattern)
            is_new = bool(connection.execute(insert, [row]).all())
        if not is_new:
            raise BadRequest(f"There is a {told(route)} already; `loupe route set` changes it.")

    def change(self, key: Route, changes: Mapping[str, Any], by: str, at: datetime) -> Route:
        """Change some fields of the route that has the pattern, project and mode of `key`; return it.

        Raises:
            BadRequest: there is none, or what comes of it makes no sense.
            DatabaseUnavailable: no answer; nothing was changed.
        """
        values = {**_values(changes), "changed_by": by, "changed_at": at}
        with writing(self._engine) as connection:
            statement = update(routes).where(_is(key)).values(values).returning(*routes.c)
            row = connection.execute(statement).first()
            if row is None:
                raise BadRequest(f"There is no {told(key)}; `loupe route list` names all.")
            return checked_route(_route(row))  # raises before the commit

    def remove(self, camera_pattern: str, project: str, mode: RouteMode | None = None) -> tuple[Route, ...]:
        """Remove the routes of a pattern and project, of one mode or all; return them.

        Raises:
            BadRequest: there is none.
            DatabaseUnavailable: no answer; nothing was changed.
        """
        which = (routes.c.camera_pattern == camera_pattern) & (routes.c.project == project)
        if mode is not None:
            which &= routes.c.mode == mode.value
        with writing(self._engine) as connection:
            rows = connection.execute(delete(routes).where(which).returning(*routes.c)).all()
        if not rows:
            kind = f"{mode.value} route" if mode else "route"
            raise BadRequest(
                f"There is no {kind} {camera_pattern} to {project}; `loupe route list` names all."
            )
        return tuple(_route(row) for row in rows)


def told(route: Route) -> str:
    """Return a route's name for people."""
    return f"{route.mode.value} route {route.camera_pattern} to {route.project}"


def checked_route(route: Route) -> Route:
    """Return the route.

    Raises:
        BadRequest: it makes no sense; the message says what would.
    """
    checked_project_name(route.project)
    if not 0 < len(route.camera_pattern) <= _LONGEST_PATTERN:
        raise BadRequest(f"A camera pattern has 1 to {_LONGEST_PATTERN} characters, for example `line-1-*`.")
    if route.mode is RouteMode.CANARY and not 0 < route.share_ratio < 1:
        raise BadRequest("A canary judges a share above 0 and below 1, for example --share 0.05.")
    if route.mode is not RouteMode.CANARY and route.share_ratio != 1:
        raise BadRequest("Only a canary has a share; add --mode canary.")
    if route.deadline_s is not None and not 0 < route.deadline_s < inf:
        raise BadRequest("A deadline is more than 0 seconds after the capture.")
    if not -(2**31) <= route.priority < 2**31:
        raise BadRequest("A priority is a whole number of at most nine digits.")
    return route


def _is(key: Route) -> ColumnElement[bool]:
    table = routes.c
    return (
        (table.camera_pattern == key.camera_pattern)
        & (table.project == key.project)
        & (table.mode == key.mode.value)
    )


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return column values; names of enumerations are their values."""
    return {name: getattr(value, "value", value) for name, value in fields.items()}


def _route(row: Row[Any]) -> Route:
    return Route(
        row.camera_pattern,
        row.project,
        RouteMode(row.mode),
        ArchivePolicy(row.archive),
        row.deadline_s,
        row.share_ratio,
        RetentionClass(row.retention),
        row.priority,
    )
