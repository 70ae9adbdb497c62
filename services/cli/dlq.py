"""`loupe dlq list | show | export | redrive`: records that could not be handled, and another try."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from services.adapters.broker.reader import KafkaTopicReader
from services.cli.dead_letters import Filters, Found, find, letters, with_verdicts
from services.cli.dlq_views import (
    MANIFEST,
    Group,
    export_letter,
    facts_of,
    headers_of,
    print_details,
    print_groups,
    print_letters,
)
from services.cli.events import parse_since
from services.cli.layout import open_console
from services.cli.redriving import Outcome, Redriver
from services.cli.redriving import as_json as outcome_json
from services.cli.settings import database_address, kafka_address
from services.domain.errors import BadRequest, RetryLater, StopProcess
from services.domain.project import checked_project_name
from services.domain.topics import FRAMES

if TYPE_CHECKING:
    from sqlalchemy import Engine

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")
console = open_console()

Cause = Annotated[str | None, typer.Option("--cause", help="Only this cause, as `list` names it.")]
Topic = Annotated[str | None, typer.Option("--topic", help="Only of this topic, e.g. loupe.frames.")]
Camera = Annotated[str | None, typer.Option("--camera", metavar="ID", help="Only of this camera.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only since 10m, 2h, or a time.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class By(StrEnum):
    """What letters are grouped by."""

    CAUSE = "cause"
    CAMERA = "camera"


@app.callback()
def dlq() -> None:
    """Records that could not be handled: original bytes and headers, with the cause."""


@app.command("list")
def list_letters(
    cause: Cause = None,
    topic: Topic = None,
    camera: Camera = None,
    since: Since = None,
    by: Annotated[By, typer.Option("--by", help="Group by this.")] = By.CAUSE,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help="So many letters below the groups, the newest. [20]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters: groups with what to do, then the newest. JSON has all of them, a line each.

    For example:

    - `loupe dlq list --cause UnreadableImage`
    - `loupe dlq list --by camera --since 1d`
    """
    groups: dict[str, Group] = defaultdict(Group)
    newest: deque[Found] = deque(maxlen=limit if as_json or limit is not None else 20)
    with _reading() as (reader, engine):
        found = letters(reader, _filters(cause, topic, camera, since))
        for one in with_verdicts(engine, (one.without_bytes() for one in found)):
            groups[one.letter.cause if by is By.CAUSE else one.letter.camera].add(one)
            newest.append(one)
    shown = sorted(newest, key=lambda one: one.letter.failed_at)
    if as_json:
        for one in shown:
            typer.echo(json.dumps(facts_of(one)))
    elif groups:
        print_groups(console, groups, by)
        if shown:
            console.print()
            print_letters(console, shown)
    else:
        console.print("No dead letters.")


@app.command()
def show(
    which: Annotated[str, typer.Argument(metavar="POSITION|FRAME_ID", help="As `loupe dlq list` names it.")],
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the original bytes there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: headers, cause, reason, tries, and what to do.

    Example: `loupe dlq show loupe.frames.dlq:0:3 --save bad.jpg`
    """
    reader = KafkaTopicReader(kafka_address())
    try:
        one = find(reader, which)
    finally:
        reader.close()
    if save is not None:
        save.write_bytes(one.letter.original.value)
    if as_json:
        typer.echo(json.dumps({**facts_of(one), "headers": headers_of(one.letter)}, indent=1))
        return
    print_details(console, one)
    if save is not None:
        console.print(Text(f"{len(one.letter.original.value)} bytes written to {save}"))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.", file_okay=False)],
    cause: Cause = None,
    topic: Topic = None,
    camera: Camera = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Write the originals of dead letters as files, with all that is known of them in `manifest.jsonl`.

    Files that lie there stay as they are; the same letters again add nothing.

    Example: `loupe dlq export bad-images --cause UnreadableImage`
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = left = 0
    with _reading() as (reader, engine):
        found = letters(reader, _filters(cause, topic, camera, since))
        # One by one: a chunk of images would need memory that a laptop may not have.
        for one in found:
            (told,) = with_verdicts(engine, [one])
            is_new = export_letter(told, folder) is not None
            written, left = written + is_new, left + (not is_new)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "written": written, "were_there": left}))
    else:
        console.print(Text(f"{written} written to {folder}, {left} were there; facts in {MANIFEST}"))


@app.command()
def redrive(
    which: Annotated[
        list[str] | None, typer.Argument(metavar="[POSITION|FRAME_ID]...", help="As `list` names them.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All that the filters leave; frames, unless --topic says else.")
    ] = False,
    cause: Cause = None,
    topic: Topic = None,
    camera: Camera = None,
    since: Since = None,
    project: Annotated[str | None, typer.Option("--project", help="Judge by this project's model.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also frames that were judged since.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Publish nothing, only count.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="So many at most.")] = None,
    rate_fps: Annotated[
        float, typer.Option("--rate", metavar="N", min=0, help="So many a second at most; 0: no limit.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Publish dead letters again, byte for byte, with the same frame ids.

    A frame that is judged then counts as judged; one that fails again is quarantined again, with its tries
    added up. Interrupted, run it again: frames with a verdict are left out.

    For example:

    - `loupe dlq redrive --all --cause UnknownProject --project parts`
    - `loupe dlq redrive loupe.frames.dlq:0:3`
    """
    if bool(which) == every:
        raise BadRequest("Say which: positions or frame ids as `loupe dlq list` names them, or --all.")
    if project is not None:
        checked_project_name(project)
    from services.adapters.broker.kafka import KafkaBrokerProducer

    outcome = Outcome()
    with _reading() as (reader, engine), _counting() as progress:
        producer = None if dry_run else KafkaBrokerProducer(kafka_address())
        try:
            filters = _filters(cause, topic or FRAMES.name, camera, since)
            found = (find(reader, one) for one in which) if which else letters(reader, filters)
            told = list(with_verdicts(engine, (one.without_bytes() for one in found)))
            redriver = Redriver(reader, producer, project, again, rate_fps, progress)
            redriver.redrive(told, outcome, limit=limit)
        finally:
            if producer is not None:
                producer.close()
            if as_json:
                typer.echo(json.dumps(outcome_json(outcome, is_dry=dry_run), indent=1))
            else:
                _tell(outcome, is_dry=dry_run)
    if outcome.lost or outcome.too_large:
        raise typer.Exit(1)


@contextmanager
def _reading() -> Iterator[tuple[KafkaTopicReader, Engine | None]]:
    """Give Kafka, and the database where there is one: it only adds what was judged since."""
    from services.adapters.database import open_engine, reading

    reader, engine = KafkaTopicReader(kafka_address()), None
    try:
        with suppress(RetryLater, StopProcess):
            opened = open_engine(database_address())
            with reading(opened):
                engine = opened
        yield reader, engine
    finally:
        reader.close()
        if engine is not None:
            engine.dispose()


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    columns = TextColumn("published again: {task.completed}"), TimeElapsedColumn()
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def hear(count: int) -> None:
            progress.update(task, completed=count)

        yield hear


def _filters(cause: str | None, topic: str | None, camera: str | None, since: str | None) -> Filters:
    return Filters(cause, topic, camera, parse_since(since, datetime.now(UTC)) if since else None)


def _tell(outcome: Outcome, *, is_dry: bool) -> None:
    what = "would be published again" if is_dry else "published again"
    console.print(f"{outcome.redriven} {what}")
    left_out = {
        "judged already (--again publishes them, too)": outcome.judged,
        "earlier letters of the same frames": outcome.repeats,
        "whose bytes are kept nowhere any more": len(outcome.lost),
        "too large for the broker": len(outcome.too_large),
    }
    for why, count in left_out.items():
        if count:
            console.print(f"{count} left out: {why}")
    for place in (*outcome.lost, *outcome.too_large):
        console.print(f"  {place}")
