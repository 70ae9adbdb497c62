"""`loupe camera run`: publish a folder or the synthetic line as a camera does (arrow 1).

Parses, calls `services.ingest` and shows how far it is. Needs a running stack, or any Kafka by
`LOUPE_KAFKA_BOOTSTRAP`.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from services.adapters.object_store.store import ObjectStore, s3_store
from services.cli import cameras
from services.cli.layout import open_console
from services.domain.errors import BadRequest
from services.domain.project import checked_project_name
from services.embedded.settings import EmbeddedSettings
from services.embedded.stack import running_stack
from services.ingest.pipeline import CameraSpec, Progress, run_cameras
from services.ingest.settings import ConnectionSettings
from services.ingest.sources import open_source
from services.ingest.spool import Leftover

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")
console = open_console()
errors = open_console(stderr=True)
cameras.register(app)


@app.callback()
def camera() -> None:
    """Add the cameras of a line, see how they do; or publish images as a camera does."""


@app.command()
def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder with images, a film, rtsp://…, usb:/dev/video0, `synthetic` or `synthetic:SEED`.",
        ),
    ],
    camera: Annotated[str, typer.Option("--camera", metavar="ID", help="Camera id.")] = "cam-1",
    fps: Annotated[float, typer.Option("--fps", help="Frames per second.")] = 5.0,
    loop: Annotated[bool, typer.Option("--loop", help="Show a folder or a film over and over.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for new files of a folder.")] = False,
    project: Annotated[
        str | None, typer.Option("--project", help="Project that is to judge; routes decide if not given.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="Stop after so many frames.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object at the end.")] = False,
) -> None:
    """Publish images on `loupe.frames` until the source ends, or Ctrl-C.

    Every frame is numbered, and declared on the ledger. Files are sent as they are, and stay where they are.
    It runs in this terminal; `loupe camera add` gives a camera to the ingester instead.

    For example:

    - `loupe camera run ./photos --camera cam-1 --fps 5 --loop`
    - `loupe camera run shift.mp4 --fps 10`
    - `loupe camera run rtsp://10.0.0.7/main --camera gate --count 100`
    - `loupe camera run synthetic:7`
    """
    if project is not None:
        checked_project_name(project)
    spec = CameraSpec(camera, open_source(source, loop=loop, watch=watch), fps, project, count)
    bootstrap, store = _connections()
    stop = Event()
    _stop_on_signals(stop)
    started_s = time.monotonic()
    with Live(Text(), console=errors, auto_refresh=False, transient=True) as live:
        (ended,) = run_cameras(
            [spec],
            bootstrap,
            stop,
            lambda now: live.update(_line(now), refresh=True),
            spool_folder=_spool_folder(camera),
            store=store,
            on_leftovers=_tell_leftovers,
        )
    elapsed_s = time.monotonic() - started_s
    if as_json:
        typer.echo(json.dumps(_ended_json(ended, elapsed_s)))
    else:
        told = f": {ended.captured} frames in {elapsed_s:.1f} s, {ended.acknowledged} acknowledged, "
        told += f"{ended.shed} shed. Epoch {ended.epoch}."
        console.print(Text.assemble((ended.camera, "green"), told))
    if not ended.is_declared:
        errors.print(
            f"[red]Kafka does not have all frames yet: {ended.spooled_frames} wait on disk.[/] "
            "The same command sends them first."
        )
        raise typer.Exit(1)


def _ended_json(ended: Progress, elapsed_s: float) -> dict[str, object]:
    return {
        "camera": ended.camera,
        "epoch": ended.epoch,
        "captured": ended.captured,
        "acknowledged": ended.acknowledged,
        "shed": ended.shed,
        "spooled": ended.spooled_frames,
        "elapsed_s": round(elapsed_s, 3),
    }


def _spool_folder(camera: str) -> Path:
    """Return where frames of a camera wait; the name says whose they are, its digest keeps names apart."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", camera)[:40]
    digest = sha256(camera.encode()).hexdigest()[:8]
    return EmbeddedSettings().home_folder.path / "spool" / f"run-{name}-{digest}"


def _tell_leftovers(leftovers: Sequence[Leftover]) -> None:
    for one in leftovers:
        what = f"{one.frames} frames ({one.size_bytes / 1e6:.1f} MB)"
        errors.print(Text(f"{one.camera}: {what} of an earlier run are sent first."))


def _connections() -> tuple[str, ObjectStore]:
    """Return where Kafka and the object store are: of the environment, else of the running stack.

    Raises:
        BadRequest: neither is there; the sentence says what to do.
    """
    given = ConnectionSettings()
    if given.kafka_bootstrap:
        return given.kafka_bootstrap, given.object_store()
    stack = running_stack(EmbeddedSettings())
    if stack is None:
        raise BadRequest("No stack runs here. Start it with `loupe up`, or set LOUPE_KAFKA_BOOTSTRAP.")
    return stack.kafka_bootstrap, s3_store(stack.s3_endpoint, stack.s3_key, stack.s3_secret, stack.s3_region)


def _stop_on_signals(stop: Event) -> None:
    """Let the first signal end the run gracefully, and a second one at once."""

    def ask(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)


def _line(now: Progress) -> Text:
    line = Text.assemble(
        (now.camera, "bold"),
        f"  sent {now.captured}  acknowledged {now.acknowledged}  {now.fps:.1f} frames/s",
    )
    # Below a second is what a healthy broker takes; only more is news.
    if now.oldest_s >= 1:
        line.append(f"  {now.spooled_frames} wait on disk since {now.oldest_s:.0f} s", "yellow")
    if now.is_disk_full:
        line.append("  the disk is full", "red")
    if now.shed:
        line.append(f"  shed {now.shed}", "red")
    return line
