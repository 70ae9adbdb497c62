"""`loupe archive`: how many pixels are kept, and a turn of the sweeper by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from services.adapters.clock import SystemClock
from services.adapters.database import open_engine
from services.cli.layout import Column, open_console, print_list
from services.cli.settings import database_address, object_store
from services.domain.hosting import RETENTION_DAYS
from services.results.retention import Retention, kept_by_class

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")
console = open_console()
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]


@app.callback()
def archive() -> None:
    """Kept pixels. The results service deletes what has run out every hour; verdicts stay."""


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show how many verdicts keep pixels, per retention class.

    Example: `loupe archive status`
    """
    engine = open_engine(database_address())
    try:
        kept = kept_by_class(engine)
    finally:
        engine.dispose()
    if as_json:
        typer.echo(json.dumps({name: asdict(one) for name, one in kept.items()}, indent=1))
        return
    columns = (
        Column("class"),
        Column("kept for"),
        *(Column(name, is_right=True) for name in ("verdicts", "MB")),
    )
    rows = []
    for name, one in kept.items():
        days = RETENTION_DAYS[name]
        kept_for = "ever" if days is None else f"{days} days"
        rows.append((name.value, kept_for, str(one.rows), f"{one.size_bytes / 1e6:.1f}"))
    print_list(console, columns, rows)


@app.command()
def sweep(
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete now what has run out, and images that nothing refers to.

    Example: `loupe archive sweep --dry-run`
    """
    engine = open_engine(database_address())
    try:
        retention = Retention(engine, object_store(), SystemClock(), is_dry=is_dry)
        deleted = {"retention": retention.expire(), "orphan": retention.sweep_orphans()}
    finally:
        engine.dispose()
    if as_json:
        typer.echo(json.dumps({why: asdict(one) for why, one in deleted.items()}, indent=1))
        return
    done = "would be deleted" if is_dry else "deleted"
    for why, one in deleted.items():
        what = f"{one.rows} verdicts ran out" if why == "retention" else "Nothing refers to"
        size = f"{one.size_bytes / 1e6:.1f} MB"
        console.print(Text(f"{what}: {one.images} images {done} ({size})."))
