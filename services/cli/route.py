"""`loupe route`: which camera goes to which project. Parses, calls `services.hosting.route_store`, prints.

Hosting reads the routes every second and tells the stream; nothing is started anew.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from services.adapters.database import open_engine
from services.cli.layout import Column, Room, open_console, print_list
from services.cli.settings import database_address
from services.cli.unjudged import cameras_seen, unjudged
from services.domain.errors import BadRequest
from services.domain.hosting import (
    RETENTION_DAYS,
    ArchivePolicy,
    CameraRoutes,
    HostingStatus,
    RetentionClass,
    Route,
    RouteMode,
    RouteTable,
    by_importance,
    routes_in_force,
)
from services.hosting.route_store import RouteStore, StoredRoute, told
from services.hosting.store import HostingStore

if TYPE_CHECKING:
    from sqlalchemy import Engine

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")
console = open_console()
errors = open_console(stderr=True)
# Cameras without a judge that a warning names.
_SHOWN_UNJUDGED = 5

_DAYS = ", ".join(f"{name} {days} days" for name, days in RETENTION_DAYS.items() if days)
Pattern = Annotated[
    str, typer.Argument(metavar="PATTERN", help="Camera id; `*`, `?` and `[a-z]` stand for letters.")
]
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Project that is to judge.")]
Mode = Annotated[
    RouteMode, typer.Option("--mode", help="live judges; canary judges a share instead; shadow looks on.")
]
Share = Annotated[
    float | None, typer.Option("--share", metavar="RATIO", help="A canary's share of the frames, 0 to 1.")
]
Archive = Annotated[
    ArchivePolicy | None,
    typer.Option("--archive", help="Pixels to keep; interesting: anomalous, uncertain, 1 in 100 others."),
]
Keep = Annotated[
    RetentionClass | None,
    typer.Option("--retention", metavar="CLASS", help=f"How long they are kept: {_DAYS}, or forever."),
]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="SECONDS", help="Older frames are let go, and declared. 0: never."),
]
Priority = Annotated[
    int | None, typer.Option("--priority", help="Of the live routes that match, the highest judges.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def route() -> None:
    """Which camera goes to which project. Changes take effect within seconds, without a restart.

    Of the live routes that match a camera one judges: the highest priority, then the narrowest pattern.
    While a single project is hosted, it judges every camera that no live route matches.
    """


@app.command("list")
def list_routes(as_json: AsJson = False) -> None:
    """List the routes, most important first.

    Example: `loupe route list`
    """
    with _stores() as (routes, hosting, _):
        stored, hosted = routes.all(), _hosted(hosting)
    order = {route: place for place, route in enumerate(by_importance(one.route for one in stored))}
    stored = tuple(sorted(stored, key=lambda one: order[one.route]))
    if as_json:
        typer.echo(json.dumps([_as_json(one, hosted) for one in stored], indent=1))
        return
    if stored:
        _show(stored, hosted)
    if not any(one.route.mode is RouteMode.LIVE for one in stored):
        console.print(Text(_without_routes(hosted)))


@app.command()
def add(
    camera_pattern: Pattern,
    project: Project,
    mode: Mode = RouteMode.LIVE,
    share: Share = None,
    archive: Archive = None,
    retention: Keep = None,
    deadline: Deadline = None,
    priority: Priority = None,
    as_json: AsJson = False,
) -> None:
    """Set a new route.

    For example:

    - `loupe route add "press-*" plates --retention long`
    - `loupe route add "*" plates-new --mode canary --share 0.05`
    """
    wanted = Route(camera_pattern, project, mode, **_given(share, archive, retention, deadline, priority))
    by, at = getpass.getuser(), datetime.now(UTC)
    with _stores() as (routes, hosting, engine):
        routes.add(wanted, by, at)
        hosted = _hosted(hosting)
        left = _left(engine, routes, hosted, at)
    _tell("set", StoredRoute(wanted, by, at), hosted, left, as_json)


@app.command("set")
def set_route(
    camera_pattern: Pattern,
    project: Project,
    mode: Mode = RouteMode.LIVE,
    share: Share = None,
    archive: Archive = None,
    retention: Keep = None,
    deadline: Deadline = None,
    priority: Priority = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a route, and leave the rest as it is.

    Example: `loupe route set "*" plates-new --mode canary --share 0.2`
    """
    changes = _given(share, archive, retention, deadline, priority)
    if not changes:
        raise BadRequest("Name what is to change, for example --archive all.")
    by, at = getpass.getuser(), datetime.now(UTC)
    with _stores() as (routes, hosting, engine):
        changed = routes.change(Route(camera_pattern, project, mode), changes, by, at)
        hosted = _hosted(hosting)
        left = _left(engine, routes, hosted, at)
    _tell("changed", StoredRoute(changed, by, at), hosted, left, as_json)


@app.command()
def remove(
    camera_pattern: Pattern,
    project: Project,
    mode: Annotated[RouteMode | None, typer.Option("--mode", help="Only of this mode.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove a route.

    Example: `loupe route remove "*" plates-new --mode canary`
    """
    with _stores() as (routes, hosting, engine):
        removed = routes.remove(camera_pattern, project, mode)
        left = _left(engine, routes, _hosted(hosting), datetime.now(UTC))
    if as_json:
        removed_json = [_plain(one) for one in removed]
        typer.echo(json.dumps({"removed": removed_json, "cameras_without_route": left}, indent=1))
        return
    for one in removed:
        console.print(Text(f"The {told(one)} is removed."))
    _warn(left)


@app.command("test")
def tell_camera(
    camera: Annotated[str, typer.Argument(metavar="CAMERA", help="A camera id, known or not.")],
    as_json: AsJson = False,
) -> None:
    """Say who would judge a camera's frames, and why.

    Example: `loupe route test press-7`
    """
    with _stores() as (routes, hosting, _):
        every, hosted = [one.route for one in routes.all()], _hosted(hosting)
    found = judged_by(camera, every, hosted)
    if as_json:
        typer.echo(json.dumps([{**_plain(one), "counts": counts, "why": why} for one, counts, why in found]))
    elif not found:
        console.print("No route matches; its frames are let go and declared shed (no-route).")
        if not every:
            console.print(Text(_without_routes(hosted)))
    for one, counts, why in () if as_json else found:
        mark = Text("●", "green" if counts else "dim")
        console.print(Text.assemble(mark, f" {told(one)}: {why}"))


def judged_by(camera: str, every: Sequence[Route], hosted: Sequence[str]) -> list[tuple[Route, bool, str]]:
    """Return the routes that match a camera, most important first: whether each counts, and why."""
    in_force = routes_in_force(every, hosted)
    counting = RouteTable(in_force, hosted).of_camera(camera)
    canaries = dict(reversed([(route, end) for end, route in counting.canaries]))
    found: list[tuple[Route, bool, str]] = []
    for route in dict.fromkeys([*by_importance(every), *in_force]):
        if not fnmatchcase(camera, route.camera_pattern):
            continue
        if route.project not in hosted:
            found.append((route, False, f"does not count, {route.project} is not hosted"))
        elif route == counting.live:
            rest = max(0.0, 1 - max(canaries.values(), default=0.0))
            default = "" if route in every else ", by default while only one project is hosted"
            found.append((route, True, f"judges {rest:.1%} of the frames{default}"))
        elif route in canaries:
            found.append((route, True, f"judges {route.share_ratio:.1%} of the frames instead"))
        elif route in counting.shadows and (counting.live or canaries):
            found.append((route, True, "judges as well, without events"))
        else:
            found.append((route, False, _why_not(route, counting)))
    return found


def _why_not(route: Route, counting: CameraRoutes) -> str:
    if route.mode is RouteMode.SHADOW and counting.live is None:
        return "does not count, no live route matches"
    if route.mode is RouteMode.LIVE and counting.live is not None:
        return f"does not count, the {told(counting.live)} is more important"
    return "does not count, a more important one names the same project"


def _given(
    share: float | None,
    archive: ArchivePolicy | None,
    retention: RetentionClass | None,
    deadline: float | None,
    priority: int | None,
) -> dict[str, Any]:
    """Return the fields that were given."""
    fields: dict[str, Any] = {
        "share_ratio": share,
        "archive": archive,
        "retention": retention,
        "deadline_s": deadline,
        "priority": priority,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    if deadline == 0:
        given["deadline_s"] = None
    return given


@contextmanager
def _stores() -> Iterator[tuple[RouteStore, HostingStore, Engine]]:
    engine = open_engine(database_address())
    try:
        yield RouteStore(engine), HostingStore(engine), engine
    finally:
        engine.dispose()


def _hosted(store: HostingStore) -> list[str]:
    """Return the projects that have units, or are about to."""
    failed = HostingStatus.HOSTING_FAILED
    return sorted(one.hosting.project for one in store.hosted() if one.status is not failed)


def _left(engine: Engine, routes: RouteStore, hosted: Sequence[str], now: datetime) -> list[str]:
    """Return the cameras that no live route matches now."""
    return unjudged(cameras_seen(engine, hosted, now), [one.route for one in routes.all()], hosted)


def _tell(what: str, stored: StoredRoute, hosted: Sequence[str], left: Sequence[str], as_json: bool) -> None:
    if as_json:
        told_json = {**_as_json(stored, hosted), "cameras_without_route": list(left)}
        typer.echo(json.dumps(told_json, indent=1))
        return
    console.print(Text(f"The {told(stored.route)} is {what}; it is in force within seconds."))
    if stored.route.project not in hosted:
        console.print(Text(f"{stored.route.project} is not hosted yet: until then the route does not count."))
    _warn(left)


def _without_routes(hosted: Sequence[str]) -> str:
    match hosted:
        case []:
            return "No project is hosted: frames wait in Kafka."
        case [one]:
            return f"No live route is set: {one}, the only project that is hosted, judges every camera."
        case _:
            return "No live route is set, and several projects are hosted: frames are let go (no-route)."


def _plain(route: Route) -> dict[str, Any]:
    return asdict(route)


def _as_json(stored: StoredRoute, hosted: Sequence[str]) -> dict[str, Any]:
    at = stored.changed_at
    return {
        **_plain(stored.route),
        "is_hosted": stored.route.project in hosted,
        "changed_by": stored.changed_by,
        "changed_at": at.isoformat() if at else None,
    }


def _show(stored: Sequence[StoredRoute], hosted: Sequence[str]) -> None:
    columns = (
        *(Column(name) for name in ("cameras", "project", "mode", "keeps pixels")),
        Column("priority", is_right=True),
        Column("deadline", room=Room.BELOW),
        Column("set by", room=Room.WIDE),
        Column("at", room=Room.WIDE),
    )
    rows = []
    for one in stored:
        route, at = one.route, one.changed_at
        share = f" {route.share_ratio:.1%}" if route.mode is RouteMode.CANARY else ""
        kept_for = "" if route.archive is ArchivePolicy.NONE else f", {route.retention.value}"
        cells = (
            Text(route.camera_pattern),
            Text(route.project, "" if route.project in hosted else "red"),
            Text(route.mode.value + share),
            Text(route.archive.value + kept_for),
            Text(str(route.priority)),
            Text(f"{route.deadline_s:g} s" if route.deadline_s else ""),
            Text(one.changed_by),
            Text(f"{at.astimezone():%m-%d %H:%M:%S}" if at else ""),
        )
        rows.append(cells)
    print_list(console, columns, rows)
    if missing := sorted({one.route.project for one in stored} - set(hosted)):
        console.print(Text(f"Not hosted, so not in force: {', '.join(missing)}."))


def _warn(left: Sequence[str]) -> None:
    """Say whose frames would be let go."""
    if not left:
        return
    named = ", ".join(left[:_SHOWN_UNJUDGED])
    more = f" and {len(left) - _SHOWN_UNJUDGED} more" if len(left) > _SHOWN_UNJUDGED else ""
    what = "camera, whose frames are" if len(left) == 1 else "cameras, whose frames are"
    warning = f"No live route matches {len(left)} {what} let go and declared shed (no-route): {named}{more}."
    errors.print(Text(warning, "yellow"))
