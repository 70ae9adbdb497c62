"""`loupe drift`: do the cameras still show what the models learnt from? Asks `results.drift` and prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from services.adapters.database import open_engine
from services.cli.layout import Column, Room, open_console, print_list
from services.cli.settings import database_address
from services.results.drift import LEAST_FRAMES, drift_of_cameras

console = open_console()

_SAID = {
    "exposure": ("darker", "brighter"),
    "focus": ("blurred", "sharper"),
    "embedding": ("more alike", "other scene"),
    "score": ("more normal", "less normal"),
}


def drift(
    camera: Annotated[str | None, typer.Argument(metavar="[CAMERA]", help="Only this one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Tell how each camera's pictures lie to the photos that its model learnt from.

    Each number is the median over the camera's last 200 frames: 0 is the middle of the training photos, -1
    and 1 are their 5 and 95 %. From 2 on the camera has drifted, whether or not there are defects: mend its
    light or focus, or label some new photos of good parts and train again.

    - exposure: how bright the picture is
    - focus: how sharp it is
    - embedding: how far the whole picture is from the training photos
    - score: how anomalous frames look on the whole

    Example: `loupe drift belt-1 --json`
    """
    engine = open_engine(database_address())
    try:
        found = drift_of_cameras(engine, camera)
    finally:
        engine.dispose()
    if as_json:
        typer.echo(
            json.dumps(
                [{**asdict(one), "since": one.since.isoformat(), "drifted": one.drifted} for one in found]
            )
        )
        return
    if not found:
        who = f"Camera {camera} has no" if camera else "No camera has"
        console.print(f"{who} frames yet whose model knows its training photos.")
        return
    columns = (
        Column("camera"),
        Column("project"),
        Column("frames", is_right=True),
        *(Column(name, is_right=True) for name in _SAID),
        Column("", room=Room.BELOW),
    )
    rows: list[tuple[str | Text, ...]] = []
    for one in found:
        numbers = [f"{one.places[name]:+.1f}" if name in one.places else "-" for name in _SAID]
        said = ", ".join(_SAID[name][one.places[name] > 0] for name in one.drifted)
        if one.frames < LEAST_FRAMES:
            said = f"only {one.frames} frames so far"
        rows.append((one.camera, one.project, str(one.frames), *numbers, Text(said, "yellow")))
    print_list(console, columns, rows)
