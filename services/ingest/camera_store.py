"""Cameras in the database: what is configured, who runs each by lease, and how it does (arrow 1).

The only writer of `cameras` and `camera_states`. Leases go by the database's clock (a SQLite file is used on
one machine, whose clock it is). A lease that reaches further than any can, because that clock went back, is
cut short. When it jumps ahead, or an ingester cannot reach the database for longer than a lease, two may run
one camera until the first hears of it: their epochs differ, so no id is given twice. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import camera_states, cameras
from services.domain.camera import CameraState
from services.domain.errors import BadRequest
from services.ingest.camera_rows import (
    CameraReport,
    ListedCamera,
    StoredCamera,
    listed_of,
    report_of,
    report_row,
    row_of,
    stored_of,
)

# Six times the pause between two renewals: a slow database costs no camera, a dead ingester half a minute.
LEASE_S = 30.0
# PostgreSQL takes 65 535 parameters in a statement.
_PAGE = 5000
_FINAL = (CameraState.ENDED.value,)


class CameraStore:
    """See the module. Blocking; every method is one transaction."""

    def __init__(self, engine: Engine, *, lease_s: float = LEASE_S) -> None:
        """Use a migrated database; all ingesters of a cluster have the same `lease_s`."""
        self._engine, self._lease = engine, timedelta(seconds=lease_s)

    # --- configuration

    def add(self, new: Sequence[StoredCamera], by: str) -> None:
        """Add cameras, all or none.

        Raises:
            BadRequest: one of that id exists, or two of them have the same id.
        """
        with writing(self._engine) as connection:
            names = [one.camera.camera for one in new]
            if twice := _known(connection, names) | _twice(names):
                raise BadRequest(_exists(twice))
            at = _next_change(connection)
            rows = [{**row_of(one), "created_at": at, "changed_by": by, "changed_at": at} for one in new]
            if rows:
                connection.execute(insert(cameras), rows)

    def change(self, changed: StoredCamera, by: str) -> None:
        """Replace the configuration of a camera, its secret and its token.

        Raises:
            BadRequest: there is none of that id.
        """
        with writing(self._engine) as connection:
            values = {**row_of(changed), "changed_by": by, "changed_at": _next_change(connection)}
            same = cameras.c.camera == changed.camera.camera
            if connection.execute(update(cameras).where(same).values(values)).rowcount == 0:
                raise BadRequest(_unknown([changed.camera.camera]))

    def pause(self, names: Collection[str], by: str, *, is_paused: bool) -> None:
        """Pause cameras or let them run again; one that has ended or was wrong is tried again.

        Raises:
            BadRequest: one is unknown; nothing was changed.
        """
        with writing(self._engine) as connection:
            _require(connection, names)
            values = {"is_paused": is_paused, "changed_by": by, "changed_at": _next_change(connection)}
            connection.execute(update(cameras).where(cameras.c.camera.in_(names)).values(values))

    def remove(self, names: Collection[str]) -> None:
        """Forget cameras; who runs one stops it, and its lease ends then.

        Raises:
            BadRequest: one is unknown; nothing was changed.
        """
        with writing(self._engine) as connection:
            _require(connection, names)
            connection.execute(delete(cameras).where(cameras.c.camera.in_(names)))

    def version(self) -> tuple[int, datetime | None]:
        """Return what changes with every change of the configuration; cheap."""
        query = select(func.count(), func.max(cameras.c.changed_at))
        with reading(self._engine) as connection:
            count, changed_at = connection.execute(query).one()
        return count, changed_at

    def cameras(self, name: str | None = None) -> dict[str, StoredCamera]:
        """Return all cameras by id, or the one of that id if there is one."""
        query = select(cameras).order_by(cameras.c.camera)
        if name is not None:
            query = query.where(cameras.c.camera == name)
        with reading(self._engine) as connection:
            return {row.camera: stored_of(row) for row in connection.execute(query)}

    def listed(self, name: str | None = None) -> list[ListedCamera]:
        """Return cameras with their states, by id; one query for all."""
        told = [column.label(f"told_{column.name}") for column in camera_states.c]
        query = select(cameras, *told).outerjoin(camera_states, camera_states.c.camera == cameras.c.camera)
        if name is not None:
            query = query.where(cameras.c.camera == name)
        with reading(self._engine) as connection:
            now = _now(connection)
            leased = select(camera_states.c.camera).where(camera_states.c.lease_until > now).limit(1)
            is_staffed = connection.scalar(leased) is not None
            return [
                listed_of(row, now, is_staffed=is_staffed)
                for row in connection.execute(query.order_by(cameras.c.camera))
            ]

    # --- leases and states

    def take(
        self, ingester: str, limit: int, is_mine: Callable[[str], bool] = lambda _: True
    ) -> dict[str, CameraReport]:
        """Lease cameras that nobody holds and that are to run, `limit` at most; return the last word on each.

        Args:
            ingester: who takes them.
            limit: how many.
            is_mine: whether this ingester may run the camera of an id.
        """
        with writing(self._engine) as connection:
            now = _now(connection)
            _mend_leases(connection, now, self._lease)
            is_over = camera_states.c.state.in_(_FINAL)
            wanted = [name for name in connection.scalars(_free(now)) if is_mine(name)][:limit]
            for page in _pages(wanted):
                connection.execute(
                    insert_or_ignore(connection, camera_states),
                    [_first_state(name, ingester, now) for name in page],
                )
                # Only who finds the lease still free gets it: another ingester may have waited for our lock.
                connection.execute(
                    update(camera_states)
                    .where(camera_states.c.camera.in_(page), camera_states.c.lease_until <= now)
                    .values(
                        ingester=ingester,
                        lease_until=now + self._lease,
                        # It begins anew: nobody is to read that it has ended.
                        state=case((is_over, CameraState.NEW.value), else_=camera_states.c.state),
                    )
                )
            held = _held(connection, ingester, now)
            states = select(*(column.label(f"told_{column.name}") for column in camera_states.c))
            return {
                row.told_camera: report_of(row)
                for page in _pages([name for name in wanted if name in held])
                for row in connection.execute(states.where(camera_states.c.camera.in_(page)))
            }

    def renew(self, ingester: str, reports: Sequence[CameraReport] = ()) -> set[str]:
        """Renew all leases of an ingester, note how its cameras do, and return which it holds.

        A lease that ran out is renewed too unless another ingester has taken it meanwhile.
        """
        with writing(self._engine) as connection:
            now = _now(connection)
            mine = camera_states.c.ingester == ingester
            connection.execute(update(camera_states).where(mine).values(lease_until=now + self._lease))
            self._note(connection, ingester, reports, now)
            return _held(connection, ingester, now)

    def let_go(self, ingester: str, reports: Sequence[CameraReport]) -> None:
        """End leases, with the last word on each camera."""
        with writing(self._engine) as connection:
            now = _now(connection)
            self._note(connection, ingester, reports, now)
            names = [report.camera for report in reports]
            for page in _pages(names):
                mine = and_(camera_states.c.ingester == ingester, camera_states.c.camera.in_(page))
                connection.execute(update(camera_states).where(mine).values(lease_until=now))
                known = _known(connection, page)
                connection.execute(
                    delete(camera_states).where(
                        mine, camera_states.c.camera.in_([name for name in page if name not in known])
                    )
                )

    def let_all_go(self, ingester: str) -> None:
        """End all leases of an ingester that has just started: what it held before, it holds no more."""
        with writing(self._engine) as connection:
            mine = camera_states.c.ingester == ingester
            connection.execute(update(camera_states).where(mine).values(lease_until=_now(connection)))

    def holders(self, names: Collection[str]) -> dict[str, str]:
        """Return who holds the lease of each of these cameras that is leased."""
        query = select(camera_states.c.camera, camera_states.c.ingester, camera_states.c.lease_until)
        with reading(self._engine) as connection:
            now = _now(connection)
            return {
                row.camera: row.ingester
                for page in _pages(sorted(names))
                for row in connection.execute(query.where(camera_states.c.camera.in_(page)))
                if row.lease_until > now
            }

    @staticmethod
    def _note(connection: Connection, ingester: str, reports: Sequence[CameraReport], now: datetime) -> None:
        if not reports:
            return
        statement = update(camera_states).where(
            camera_states.c.camera == bindparam("of_camera"), camera_states.c.ingester == ingester
        )
        connection.execute(statement, [report_row(report, now) for report in reports])


def _now(connection: Connection) -> datetime:
    """Return the database's time."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found.astimezone(UTC)


def _next_change(connection: Connection) -> datetime:
    """Return a time for a change: now, but later than that of every change before."""
    last = connection.execute(select(func.max(cameras.c.changed_at))).scalar_one()
    now = _now(connection)
    return now if last is None or last < now else last + timedelta(microseconds=1)


def _free(now: datetime) -> Any:
    """Return the query for the cameras that may be leased: to run, and held by nobody else."""
    is_new = camera_states.c.camera.is_(None)
    is_over = and_(camera_states.c.state.in_(_FINAL), camera_states.c.configured_at == cameras.c.changed_at)
    return (
        select(cameras.c.camera)
        .outerjoin(camera_states, camera_states.c.camera == cameras.c.camera)
        .where(
            cameras.c.is_paused.is_(False), or_(is_new, and_(camera_states.c.lease_until <= now, ~is_over))
        )
        .order_by(cameras.c.camera)
    )


def _mend_leases(connection: Connection, now: datetime, lease: timedelta) -> None:
    """Cut leases short that the clock made too long, and forget those of cameras that are gone."""
    too_long = camera_states.c.lease_until > now + lease + timedelta(seconds=1)
    connection.execute(update(camera_states).where(too_long).values(lease_until=now + lease))
    connection.execute(
        delete(camera_states).where(
            camera_states.c.lease_until <= now, camera_states.c.camera.not_in(select(cameras.c.camera))
        )
    )


def _held(connection: Connection, ingester: str, now: datetime) -> set[str]:
    query = select(camera_states.c.camera)
    mine = query.where(camera_states.c.ingester == ingester, camera_states.c.lease_until > now)
    return set(connection.scalars(mine))


def _first_state(name: str, ingester: str, now: datetime) -> dict[str, Any]:
    """Return the row of a camera that nobody has run yet; its lease is to be taken next."""
    report = CameraReport(name, CameraState.NEW, "", now)
    row = report_row(report, now)
    return {**row, "camera": row.pop("of_camera"), "ingester": ingester, "lease_until": now, "since": now}


def _pages(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[start : start + _PAGE] for start in range(0, len(names), _PAGE))


def _known(connection: Connection, names: Sequence[str]) -> set[str]:
    query = select(cameras.c.camera)
    return {
        name for page in _pages(names) for name in connection.scalars(query.where(cameras.c.camera.in_(page)))
    }


def _require(connection: Connection, names: Collection[str]) -> None:
    if unknown := set(names) - _known(connection, sorted(names)):
        raise BadRequest(_unknown(unknown))


def _twice(names: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for name in names:
        (twice if name in seen else seen).add(name)
    return twice


def _exists(names: Collection[str]) -> str:
    return f"A camera has that id already: {', '.join(sorted(names)[:5])}. `loupe camera set` changes one."


def _unknown(names: Collection[str]) -> str:
    return f"No camera is called {', '.join(sorted(names)[:5])}; `loupe camera list` shows all."
