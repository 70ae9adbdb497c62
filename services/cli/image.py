"""`loupe image`: the pixels of a frame, wherever they are, or why there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.text import Text

from services.adapters.broker.reader import KafkaTopicReader
from services.adapters.database import open_engine
from services.cli.layout import open_console, print_facts
from services.cli.settings import database_address, kafka_address, object_store
from services.domain.errors import BadRequest
from services.results.pixels import PixelFinder, Pixels

console = open_console()


def image(
    frame: Annotated[str, typer.Argument(metavar="FRAME_ID", help="As verdicts, events and `dlq` name it.")],
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the pixels there.")
    ] = None,
    original: Annotated[
        bool, typer.Option("--original", help="The whole picture that the camera cropped or scaled down.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Find the pixels of a frame: kept, in its dead letter, or still in Kafka; their hash is verified.

    Ends with 1 when there are none (any more), and says why.

    Example: `loupe image 7c0c2b9e-58a1-5c6f-a6e2-4a56f1a1f6a3 --save frame.jpg`
    """
    try:
        frame_id = UUID(frame)
    except ValueError:
        raise BadRequest(f"{frame!r} is no frame id; they look like {UUID(int=0)}.") from None
    engine = open_engine(database_address())
    try:
        finder = PixelFinder(engine, object_store(), lambda: KafkaTopicReader(kafka_address()))
        found = finder.find(frame_id, is_original=original)
    finally:
        engine.dispose()
    if save is not None and found.image is not None:
        save.write_bytes(found.image)
    if as_json:
        typer.echo(json.dumps(as_plain(found), indent=1))
    else:
        _show(found, save)
    if found.image is None:
        raise typer.Exit(1)


def as_plain(found: Pixels) -> dict[str, object]:
    """Return what `--json` prints."""
    return {
        "frame_id": str(found.frame_id),
        "camera": found.camera,
        "ends": list(found.ends),
        "found": found.image is not None,
        "where": found.where,
        "bytes": None if found.image is None else len(found.image),
        "sha256": found.sha256,
        "notes": list(found.notes),
    }


def _show(found: Pixels, save: Path | None) -> None:
    facts: dict[str, Text] = {
        "frame": Text(str(found.frame_id)),
        "camera": Text(found.camera or "unknown"),
    }
    if found.ends:
        facts["end"] = Text("\n".join(found.ends))
    if found.image is not None:
        facts["pixels"] = Text(found.where, "green")
        facts["bytes"] = Text(str(len(found.image)))
        facts["sha256"] = Text(found.sha256 or "")
    else:
        facts["pixels"] = Text("none", "red")
    if found.notes:
        facts["note"] = Text("\n".join(found.notes))
    if save is not None and found.image is not None:
        facts["saved"] = Text(str(save))
    print_facts(console, facts)
