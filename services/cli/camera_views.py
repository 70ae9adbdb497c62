"""Cameras as people read them, and as JSON (`loupe camera list|show|token`). Never anything secret."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.settings import ingest_address
from services.domain.camera import TROUBLED, CameraState
from services.ingest.camera_rows import ListedCamera
from services.ingest.configuration import PUSH
from services.ingest.settings import ENV

console = Console()
# Above this a list is followed by how many cameras are in which state.
_LONG_LIST = 50
# More are not read by anybody; those in trouble come first then.
_SHOWN = 200


def as_data(one: ListedCamera) -> dict[str, Any]:
    """Return a camera as JSON values, without anything secret."""
    camera, told, secret = one.stored.camera, one.report, one.stored.secret
    settings = asdict(camera)
    for name in ("camera", "source"):
        del settings[name]
    found: dict[str, Any] = {
        "camera": camera.camera,
        "state": told.state.value,
        "message": told.message,
        "since": told.since.isoformat(),
        "source": camera.source,
        "secret": None if secret is None else secret if secret.startswith(ENV) else "set",
        "ingester": one.ingester,
        "epoch": told.epoch,
        "fps": told.fps,
        "captured": told.captured,
        "acknowledged": told.acknowledged,
        "shed": told.shed,
        "spooled": told.spooled,
        "last_frame_at": told.last_frame_at.isoformat() if told.last_frame_at else None,
        "settings": settings,
    }
    if camera.source == PUSH:
        found["url"] = push_url(camera.camera)
        found["token"] = "set" if one.stored.push_token_sha256 else None
    return found


def push_url(camera: str) -> str:
    """Return where pictures are pushed to a camera."""
    return f"{ingest_address()}/v1/cameras/{quote(camera, safe='')}/frames"


def print_list(found: list[ListedCamera]) -> None:
    """Print a line per camera."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("camera", "state", "since"):
        table.add_column(column, no_wrap=True)
    for column in ("fps", "captured", "shed", "spooled"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    if len(found) > _SHOWN:
        found.sort(key=lambda one: one.report.state not in TROUBLED)
    for one in found[:_SHOWN]:
        told = one.report
        table.add_row(
            told.camera, _coloured(told.state), _age(told.since), f"{told.fps:.1f}", str(told.captured),
            str(told.shed), str(told.spooled), Text(told.message, "dim"),
        )  # fmt: skip
    console.print(table)
    if len(found) > _SHOWN:
        console.print(f"{len(found) - _SHOWN} more; --state shows those of one state, --json shows all.")
    if len(found) > _LONG_LIST:
        counts = Counter(one.report.state for one in found).most_common()
        console.print(f"{len(found)} cameras: " + ", ".join(f"{count} {kind}" for kind, count in counts))


def print_details(found: dict[str, Any]) -> None:
    """Print what `as_data` says of a camera."""
    settings = found["settings"]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    # Counted frames per second and frames that were shed stand above.
    shown_as = {"fps": "fps_at_most", "shed": "when_full"}
    values = {key: value for key, value in found.items() if key != "settings"}
    for name, value in {**values, **{shown_as.get(key, key): settings[key] for key in settings}}.items():
        if value not in (None, "", False):
            shown = _coloured(CameraState(value)) if name == "state" else Text(str(value))
            table.add_row(name.replace("_", " "), shown)
    console.print(table)


def print_token(camera: str, made: str) -> None:
    """Print a token, and how to push with it."""
    console.print(f"Push to {camera} with this token, which is shown this once:", highlight=False)
    console.print(
        f'  curl -H "Authorization: Bearer {made}" --data-binary @photo.jpg {push_url(camera)}',
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip


def _coloured(state: CameraState) -> Text:
    style = "red" if state in TROUBLED else "green" if state is CameraState.RUNNING else "dim"
    return Text(state.value, style)


def _age(since: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
