"""Cameras as people read them, and as JSON (`loupe camera list|show|token`). Never anything secret."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from rich.text import Text

from services.cli.layout import Column, Room, open_console, print_facts, print_list
from services.cli.settings import ingest_address
from services.domain.camera import TROUBLED, CameraState, shown_source
from services.ingest.camera_rows import ListedCamera
from services.ingest.configuration import PUSH
from services.ingest.settings import ENV

console = open_console()
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
        "source": shown_source(camera.source),
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


def print_cameras(found: list[ListedCamera]) -> None:
    """Print a line per camera, and what it tells below it."""
    columns = (
        *(Column(name) for name in ("camera", "state", "since")),
        *(Column(name, is_right=True) for name in ("fps", "captured", "shed", "spooled")),
        Column("", room=Room.BELOW),
    )
    if len(found) > _SHOWN:
        found.sort(key=lambda one: one.report.state not in TROUBLED)
    rows = []
    for one in found[:_SHOWN]:
        told = one.report
        numbers = (f"{told.fps:.1f}", str(told.captured), str(told.shed), str(told.spooled))
        state, message = _coloured(told.state), Text(told.message, "dim")
        rows.append((told.camera, state, _age(told.since), *numbers, message))
    print_list(console, columns, rows)
    if len(found) > _SHOWN:
        console.print(f"{len(found) - _SHOWN} more; --state shows those of one state, --json shows all.")
    if len(found) > _LONG_LIST:
        counts = Counter(one.report.state for one in found).most_common()
        console.print(f"{len(found)} cameras: " + ", ".join(f"{count} {kind}" for kind, count in counts))


def print_details(found: dict[str, Any]) -> None:
    """Print what `as_data` says of a camera."""
    settings = found["settings"]
    # Counted frames per second and frames that were shed stand above.
    shown_as = {"fps": "fps_at_most", "shed": "when_full"}
    values = {key: value for key, value in found.items() if key != "settings"}
    facts: dict[str, Text] = {}
    for name, value in {**values, **{shown_as.get(key, key): settings[key] for key in settings}}.items():
        if value not in (None, "", False):
            facts[name.replace("_", " ")] = (
                _coloured(CameraState(value)) if name == "state" else Text(_words(value))
            )
    print_facts(console, facts)


def print_token(camera: str, made: str) -> None:
    """Print a token, and how to push with it."""
    console.print(Text(f"Push to {camera} with this token, which is shown this once:"))
    console.print(
        f'  curl -H "Authorization: Bearer {made}" --data-binary @photo.jpg {push_url(camera)}',
        soft_wrap=True,
        markup=False,
    )


def _words(value: object) -> str:
    if value is True:
        return "yes"
    return ",".join(f"{part:g}" for part in value.values()) if isinstance(value, dict) else str(value)


def _coloured(state: CameraState) -> Text:
    style = "red" if state in TROUBLED else "green" if state is CameraState.RUNNING else "dim"
    return Text(state.value, style)


def _age(since: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
