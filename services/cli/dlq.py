"""`loupe dlq list | show`: records that could not be handled, why, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.adapters.broker.reader import KafkaTopicReader, TopicReader, read_up_to
from services.cli.settings import kafka_address
from services.domain.errors import BadRequest, MalformedRecord
from services.domain.topics import DEAD_LETTERS
from services.wire.dead_letter import DeadLetter, decode_dead_letter

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")
console = Console()
_SUFFIX = ".dlq"

# What a person can do, by the name of the error.
_HINTS = {
    "UnreadableImage": "Open the saved bytes with an image viewer; mend what the camera or producer sends.",
    "ImageTooLarge": "Send it smaller, or by reference (`dataref`); the reason names the limit.",
    "MalformedRecord": "The producer does not keep to the wire contract; the reason says where.",
    "HashMismatch": "The object was changed after it was referred to; upload it again and publish again.",
    "UnknownObject": "The object that the record refers to is gone; upload it, then publish again.",
    "FrameCrashesModel": "Keep the saved image as a test case and report it with the model's version.",
    "UnknownProject": "Fit the project, or correct its name in the record.",
    "NotEnoughImages": "Label more images of good parts, then ask for the training again.",
    "BadRequest": "Correct the request as the reason says, then publish it again.",
}
_NO_HINT = "See the log of the process that reads the topic: `loupe logs PART`."


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter, where it stands (`topic:partition:offset`), and the size of the original."""

    place: str
    letter: DeadLetter
    size_bytes: int

    def without_bytes(self) -> Found:
        """Return it without the original's bytes, so that a list of thousands fits into memory."""
        bare = replace(self.letter.original, value=b"")
        return replace(self, letter=replace(self.letter, original=bare))


@app.callback()
def dlq() -> None:
    """Records that could not be handled: original bytes and headers, with the cause."""


@app.command("list")
def list_letters(
    cause: Annotated[str | None, typer.Option("--cause", help="Only this cause, as `list` names it.")] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", help="Only of this topic, e.g. loupe.frames.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """List dead letters, oldest first.

    Example: `loupe dlq list --cause UnreadableImage`
    """
    reader = KafkaTopicReader(kafka_address())
    try:
        every = letters(reader, topic)
        found = [one.without_bytes() for one in every if cause in (None, one.letter.cause)]
    finally:
        reader.close()
    found.sort(key=lambda one: one.letter.failed_at)
    if as_json:
        for one in found:
            typer.echo(json.dumps(_as_json(one)))
    elif found:
        console.print(_table(found))
    else:
        console.print("No dead letters.")


@app.command()
def show(
    which: Annotated[str, typer.Argument(metavar="POSITION|FRAME_ID", help="As `loupe dlq list` names it.")],
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the original bytes there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
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
        typer.echo(json.dumps({**_as_json(one), "headers": _headers(one.letter)}, indent=1))
        return
    console.print(_details(one))
    if save is not None:
        console.print(f"{len(one.letter.original.value)} bytes written to {save}", highlight=False)


def letters(reader: TopicReader, topic: str | None = None) -> Iterator[Found]:
    """Yield the dead letters that Kafka keeps.

    Raises:
        BadRequest: the topic has no dead letters.
        BrokerUnavailable: no answer.
    """
    for name in _topics(topic):
        for record in read_up_to(reader, name, reader.spans(name)):
            try:
                letter = decode_dead_letter(record)
            except MalformedRecord:
                continue  # somebody else's record: the topic is open
            yield Found(f"{name}:{record.partition}:{record.offset}", letter, len(record.value))


def find(reader: TopicReader, which: str) -> Found:
    """Return the dead letter at a position, or the first of a frame.

    Raises:
        BadRequest: there is none.
    """
    match which.split(":"):
        case [topic, partition, offset] if partition.isdigit() and offset.isdigit():
            name = _topics(topic)[0]
            if int(partition) in reader.spans(name):
                for record in reader.records_at(name, int(partition), [int(offset)]):
                    return Found(which, decode_dead_letter(record), len(record.value))
        case _:
            for one in letters(reader):
                if one.letter.frame_id == which:
                    return one
    raise BadRequest(f"no dead letter {which}; `loupe dlq list` names all")


def _topics(topic: str | None) -> list[str]:
    known = [one.name for one in DEAD_LETTERS]
    if topic is None:
        return known
    name = topic if topic.endswith(_SUFFIX) else topic + _SUFFIX
    if name not in known:
        raise BadRequest(f"{topic} has no dead letters; there are {', '.join(known)}")
    return [name]


def _as_json(one: Found) -> dict[str, object]:
    letter = one.letter
    return {
        "position": one.place,
        "frame_id": letter.frame_id,
        "camera": letter.camera,
        "cause": letter.cause,
        "reason": letter.reason,
        "tries": letter.tries,
        "failed_at": letter.failed_at.isoformat(),
        "topic": letter.position.topic,
        "partition": letter.position.partition,
        "offset": letter.position.offset,
        "bytes": one.size_bytes,
    }


def _headers(letter: DeadLetter) -> dict[str, str]:
    return {name: value.decode("utf-8", "backslashreplace") for name, value in letter.original.headers}


def _table(found: list[Found]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2))
    for column in ("position", "failed at", "camera", "cause", "reason", "frame"):
        table.add_column(column, overflow="fold")
    for one in found:
        letter = one.letter
        when = f"{letter.failed_at.astimezone():%m-%d %H:%M:%S}"
        # Text, not markup: these words are other people's.
        cells = (one.place, when, letter.camera, letter.cause, letter.reason, letter.frame_id)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _details(one: Found) -> Table:
    letter = one.letter
    original = letter.position
    table = Table(box=None, show_header=False, padding=(0, 2))
    rows = {
        "position": one.place,
        "original": f"{original.topic}:{original.partition}:{original.offset}",
        "frame": letter.frame_id or "-",
        "camera": letter.camera or "-",
        "cause": letter.cause,
        "reason": letter.reason,
        "tries": str(letter.tries),
        "failed at": letter.failed_at.isoformat(),
        "bytes": str(one.size_bytes),
        **{f"header {name}": text for name, text in _headers(letter).items()},
        "what to do": _HINTS.get(letter.cause, _NO_HINT),
    }
    for name, text in rows.items():
        table.add_row(f"[dim]{name}[/]", Text(text, overflow="fold"))
    return table
