"""`loupe ledger`: prove that every captured frame was judged, quarantined or declared shed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.adapters.broker.reader import KafkaTopicReader
from services.adapters.database import open_engine
from services.cli.settings import database_address, kafka_address
from services.domain.ledger import CameraBalance, all_balanced

console = Console()
Balances = Mapping[str, CameraBalance]

_ASK_EVERY_S = 0.5
# Ids shown per camera; all of them are in the JSON.
_SHOWN_MISSING = 5


def ledger(
    camera: Annotated[str | None, typer.Option("--camera", metavar="ID", help="Only this camera.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for frames on their way.")
    ] = 0.0,
) -> None:
    """Prove captured = judged + quarantined + shed for every camera, and name each missing frame.

    Ends with 0 only when everything balances. Frames on their way are missing until they have a verdict.

    Example: `loupe ledger --wait 30`
    """
    from services.results.ledger import prove

    engine, frames = open_engine(database_address()), KafkaTopicReader(kafka_address())
    try:
        balances = _wait_for_balance(lambda: prove(engine, frames, camera), wait_s)
    finally:
        frames.close()
        engine.dispose()
    if as_json:
        typer.echo(json.dumps(_as_json(balances), indent=1))
    else:
        _show(balances)
    if not all_balanced(balances):
        raise typer.Exit(1)


def _wait_for_balance(look: Callable[[], Balances], wait_s: float) -> Balances:
    deadline_monotonic_s = time.monotonic() + wait_s
    while not all_balanced(found := look()) and time.monotonic() < deadline_monotonic_s:
        time.sleep(_ASK_EVERY_S)
    return found


def _as_json(balances: Balances) -> dict[str, object]:
    cameras = {
        camera: {**asdict(one), "missing": [str(frame_id) for frame_id in one.missing]}
        for camera, one in balances.items()
    }
    return {"balanced": all_balanced(balances), "cameras": cameras}


def _show(balances: Balances) -> None:
    if not balances:
        console.print("No frame has been captured yet.")
        return
    table = Table(box=None, header_style="dim", padding=(0, 2))
    table.add_column("")
    table.add_column("camera")
    for column in ("captured", "judged", "quarantined", "shed", "missing"):
        table.add_column(column, justify="right")
    for camera, one in balances.items():
        mark = "[green]✓[/]" if one.is_balanced else "[red]✗[/]"
        numbers = (one.captured, one.judged, one.quarantined, one.shed, len(one.missing))
        table.add_row(mark, camera, *map(str, numbers))
    console.print(table)
    for camera, one in balances.items():
        for frame_id in one.missing[:_SHOWN_MISSING]:
            console.print(f"[red]missing[/] {camera} {frame_id}", highlight=False)
        if len(one.missing) > _SHOWN_MISSING:
            console.print(f"        and {len(one.missing) - _SHOWN_MISSING} more of {camera}: --json has all")
