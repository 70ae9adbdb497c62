"""Cameras whose frames nobody would judge, for the warning of `loupe route`. Reads only.

Looked at are cameras that are configured and run, and those of the last verdicts: frames of foreign
producers have no other list. A camera that asks for a hosted project by itself needs no route.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, select

from services.adapters.database import reading
from services.adapters.database.tables import cameras, inspections
from services.domain.hosting import Route, RouteTable, routes_in_force

_SEEN_WITHIN = timedelta(days=1)
# Verdicts per project that are looked at, by an index: a thousandth of a second each.
_LAST_VERDICTS = 5000


def unjudged(cameras_seen: Iterable[str], routes: Sequence[Route], hosted: Sequence[str]) -> list[str]:
    """Return the cameras that no live route matches, sorted; none while nobody is hosted: frames wait."""
    if not hosted:
        return []
    table = RouteTable(routes_in_force(routes, hosted), hosted)
    return sorted(one for one in set(cameras_seen) if table.of_camera(one).live is None)


def cameras_seen(engine: Engine, hosted: Sequence[str], now: datetime) -> set[str]:
    """Return the cameras whose frames go by routes.

    Raises:
        DatabaseUnavailable: no answer.
    """
    with reading(engine) as connection:
        configured = connection.execute(
            select(cameras.c.camera, cameras.c.options, cameras.c.is_paused)
        ).all()
        asks = {row.camera for row in configured if (row.options or {}).get("project") in hosted}
        seen = {row.camera for row in configured if not row.is_paused}
        for project in hosted:
            seen |= _judged_lately(connection, project, now)
    return seen - asks


def _judged_lately(connection: Connection, project: str, now: datetime) -> set[str]:
    last = (
        select(inspections.c.camera)
        .where(inspections.c.project == project, inspections.c.judged_at > now - _SEEN_WITHIN)
        .order_by(inspections.c.judged_at.desc())
        .limit(_LAST_VERDICTS)
        .subquery()
    )
    return set(connection.execute(select(last.c.camera).distinct()).scalars())
