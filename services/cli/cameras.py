"""`loupe camera add|set|list|show|pause|resume|remove|token`: cameras as data, for the ingester (arrow 1).

Parses, writes the database by `services.ingest.camera_store`, prints. Works with the running stack, or with
any database by `LOUPE_DATABASE_URL`. Runs no camera itself.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from services.adapters.database import migrate, open_engine
from services.cli.camera_options import (
    AreaOption,
    AsJson,
    Fps,
    Id,
    Ids,
    KeepFiles,
    KeepOriginal,
    LongestSide,
    Loop,
    NamePattern,
    Project,
    Secret,
    Shed,
    SilentAfter,
    Trigger,
)
from services.cli.camera_views import as_data, print_cameras, print_details, print_token, push_url
from services.cli.layout import open_console
from services.cli.settings import database_address
from services.domain.camera import CameraState, OriginalPolicy, ShedPolicy, shown_source
from services.domain.errors import BadRequest, SourceUnavailable
from services.ingest.camera_rows import ListedCamera, StoredCamera
from services.ingest.camera_store import CameraStore
from services.ingest.configuration import PUSH, new_token, read_cameras, stored_camera

console = open_console()
errors = open_console(stderr=True)


def register(app: typer.Typer) -> None:
    """Put the commands into the group `loupe camera`."""
    for command, name in (
        (add, "add"), (set_camera, "set"), (list_cameras, "list"), (show, "show"), (pause, "pause"),
        (resume, "resume"), (remove, "remove"), (token, "token"),
    ):  # fmt: skip
        app.command(name)(command)


@contextmanager
def camera_store() -> Iterator[CameraStore]:
    """Give the cameras of the database that the environment or the running stack names."""
    url = database_address()
    migrate(url)
    engine = open_engine(url)
    try:
        yield CameraStore(engine)
    finally:
        engine.dispose()


def add(
    camera: Annotated[
        str | None, typer.Argument(metavar="ID", help="Camera id, the key of its records.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, film, rtsp://…, http://…, usb:/dev/video0, s3://bucket/prefix, push:, synthetic.",
        ),
    ] = None,
    fps: Fps = None,
    project: Project = None,
    area: AreaOption = None,
    longest_side: LongestSide = None,
    keep_original: KeepOriginal = None,
    name_pattern: NamePattern = None,
    shed: Shed = None,
    silent_after: SilentAfter = None,
    secret: Secret = None,
    trigger: Trigger = None,
    loop: Loop = None,
    keep_files: KeepFiles = None,
    paused: Annotated[bool, typer.Option("--paused", help="Add it, and do not run it yet.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Add all cameras of a YAML, JSON or CSV file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a camera; the ingester runs it within seconds, and after every restart.

    Files of a watched folder are published as they appear and moved to `done/` below it. A password in an
    address is kept apart and never shown. A camera whose source is not there is added, and tried until it is.

    For example:

    - `loupe camera add press-1 /data/press-1` watches a folder that another machine writes to
    - `loupe camera add gate rtsp://user:password@10.0.0.7/main --fps 5 --silent-after 30`
    - `loupe camera add plc push:` takes pictures by HTTP; it prints the address and a token
    - `loupe camera add belt shift.mp4 --area 0.2,0,0.6,1` judges the middle of a film
    - `loupe camera add saw /data/saw --name-pattern "(?P<lot_id>L[0-9]+)_(?P<part_id>P[0-9]+)"` takes lot and
      part from file names
    - `loupe camera add --from cameras.yaml` adds a list, each with `id`, `source` and options
    """
    if file is not None:
        if camera is not None or source is not None:
            raise BadRequest("With --from the file says which cameras; give no ID and SOURCE.")
        new = read_cameras(file)
    elif camera is None or source is None:
        raise BadRequest("Say which camera and what it films: loupe camera add ID SOURCE.")
    else:
        given = _given(
            fps, project, area, longest_side, keep_original, name_pattern, shed, silent_after, secret,
            trigger, loop, keep_files,
        )  # fmt: skip
        new = [stored_camera({**given, "camera": camera, "source": source, "is_paused": paused})]
    tokens = {one.camera.camera: new_token() for one in new if one.camera.source == PUSH}
    new = [
        replace(one, push_token_sha256=tokens[name][1]) if (name := one.camera.camera) in tokens else one
        for one in new
    ]
    with camera_store() as store:
        store.add(new, _user())
    _tell_added(
        new, {name: made for name, (made, _) in tokens.items()}, as_json=as_json, is_file=file is not None
    )


def set_camera(
    camera: Id,
    source: Annotated[str | None, typer.Option("--source", help="What it films from now on.")] = None,
    fps: Fps = None,
    project: Project = None,
    area: AreaOption = None,
    longest_side: LongestSide = None,
    keep_original: KeepOriginal = None,
    name_pattern: NamePattern = None,
    shed: Shed = None,
    silent_after: SilentAfter = None,
    secret: Secret = None,
    trigger: Trigger = None,
    loop: Loop = None,
    keep_files: KeepFiles = None,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="NAME", help="Go back to how it is without: fps, project, area …"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a camera; it alone is restarted. What is not given stays as it is.

    For example:

    - `loupe camera set press-1 --fps 2`
    - `loupe camera set press-1 --unset area --unset fps`
    """
    given = _given(
        fps, project, area, longest_side, keep_original, name_pattern, shed, silent_after, secret, trigger,
        loop, keep_files,
    )  # fmt: skip
    if source is not None:
        given["source"] = source
    given |= dict.fromkeys(_unset(unset or []))
    if not given:
        raise BadRequest("Say what is to change, as in --fps 2; loupe camera set --help shows all.")
    with camera_store() as store:
        known = _one(store, camera).stored
        changed = stored_camera(given, known)
        store.change(changed, _user())
    _tell(f"{camera} is changed; the ingester restarts it within seconds.", [camera], "changed", as_json)
    _warn_if_away(changed)


def list_cameras(
    state: Annotated[
        CameraState | None, typer.Option("--state", metavar="STATE", help="Only cameras in this state.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all cameras and how they do.

    For example:

    - `loupe camera list`
    - `loupe camera list --state unreachable --json`
    """
    with camera_store() as store:
        found = [one for one in store.listed() if state is None or one.report.state is state]
    if as_json:
        typer.echo(json.dumps([as_data(one) for one in found], indent=1))
        return
    if found:
        print_cameras(found)
    else:
        none = (
            f"No camera is {state.value}." if state else "No camera yet: loupe camera add ID SOURCE adds one."
        )
        console.print(none)


def show(camera: Id, as_json: AsJson = False) -> None:
    """Show one camera: what is configured, and how it does. A password is never shown.

    Example: `loupe camera show press-1`
    """
    with camera_store() as store:
        found = as_data(_one(store, camera))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    print_details(found)


def pause(cameras: Ids, as_json: AsJson = False) -> None:
    """Stop cameras until `loupe camera resume`; what they have captured is sent and judged.

    Example: `loupe camera pause press-1 press-2`
    """
    with camera_store() as store:
        store.pause(cameras, _user(), is_paused=True)
    _tell(f"Paused: {', '.join(cameras)}.", cameras, "paused", as_json)


def resume(cameras: Ids, as_json: AsJson = False) -> None:
    """Let paused cameras run again; one that has ended or is misconfigured is tried anew.

    Example: `loupe camera resume press-1`
    """
    with camera_store() as store:
        store.pause(cameras, _user(), is_paused=False)
    _tell(f"To run: {', '.join(cameras)}.", cameras, "resumed", as_json)


def remove(cameras: Ids, as_json: AsJson = False) -> None:
    """Remove cameras. Frames that they captured stay, and the ledger accounts for them.

    Example: `loupe camera remove press-1`
    """
    with camera_store() as store:
        store.remove(cameras)
    told = f"Removed: {', '.join(cameras)}. Frames already captured stay accounted for: loupe ledger."
    _tell(told, cameras, "removed", as_json)


def token(camera: Id, as_json: AsJson = False) -> None:
    """Make a new token for a push camera, in force within seconds. It is shown this once.

    The one before does not work any more. The camera runs on, and what was pushed is kept.

    Example: `loupe camera token plc`
    """
    made, digest = new_token()
    with camera_store() as store:
        known = _one(store, camera).stored
        if known.camera.source != PUSH:
            raise BadRequest(
                f"Nothing is pushed to {camera}: its source is {shown_source(known.camera.source)}."
            )
        store.change(replace(known, push_token_sha256=digest), _user())
    if as_json:
        typer.echo(json.dumps({"camera": camera, "url": push_url(camera), "token": made}))
    else:
        print_token(camera, made)


def _tell(sentence: str, names: Sequence[str], done: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({done: list(names)}))
    else:
        console.print(Text(sentence))


def _given(
    fps: float | None,
    project: str | None,
    area: str | None,
    longest_side_px: int | None,
    keep_original: OriginalPolicy | None,
    name_pattern: str | None,
    shed: ShedPolicy | None,
    silent_after_s: float | None,
    secret: str | None,
    is_triggered: bool | None,
    loop: bool | None,
    keeps_files: bool | None,
) -> dict[str, Any]:
    """Return the options that were given, by the names of the fields they set."""
    named = locals()
    return {name: value for name, value in named.items() if value is not None}


def _unset(names: Sequence[str]) -> list[str]:
    known = {
        "fps": "fps", "project": "project", "area": "area", "longest-side": "longest_side_px",
        "name-pattern": "name_pattern", "silent-after": "silent_after_s",
    }  # fmt: skip
    if unknown := [name for name in names if name not in known]:
        raise BadRequest(f"{unknown[0]!r} cannot be unset; these can: {', '.join(known)}.")
    return [known[name] for name in names]


def _one(store: CameraStore, camera: str) -> ListedCamera:
    found = store.listed(camera)
    if not found:
        raise BadRequest(f"No camera is called {camera}; `loupe camera list` shows all.")
    return found[0]


def _tell_added(new: Sequence[StoredCamera], tokens: dict[str, str], *, as_json: bool, is_file: bool) -> None:
    if as_json:
        told = [
            {"camera": one.camera.camera}
            | ({"url": push_url(one.camera.camera), "token": tokens[one.camera.camera]}
               if one.camera.camera in tokens else {})
            for one in new
        ]  # fmt: skip
        typer.echo(json.dumps(told if is_file else told[0]))
        return
    if is_file:
        console.print(f"{len(new)} cameras are added; loupe camera list shows them.")
    else:
        console.print(Text(f"{new[0].camera.camera} is added; loupe camera list shows it."))
        _warn_if_away(new[0])
    for name, made in tokens.items():
        print_token(name, made)


def _warn_if_away(one: StoredCamera) -> None:
    from services.ingest.camera_runner import require_answer

    try:
        require_answer(one.camera.source)
    except SourceUnavailable as error:
        errors.print(Text.assemble((error.message, "yellow"), " The ingester goes on trying."))


def _user() -> str:
    return getpass.getuser()
