"""`loupe events`: what Loupe says on `loupe.events`, as lines for people or as JSON (arrow 4)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.text import Text

from services.adapters.broker.reader import KafkaTopicReader, TopicReader, read_up_to
from services.cli.layout import open_console
from services.cli.settings import kafka_address
from services.domain.camera import TROUBLED
from services.domain.errors import BadRequest
from services.domain.topics import EVENTS
from services.wire.camera_event import CAMERA_TYPE
from services.wire.record import Record

console = open_console()
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as it is, a line each.")] = False,
    anomalies: Annotated[bool, typer.Option("--anomalies", help="Only anomalies.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="From 90s, 10m, 2h, 1d ago, or from an ISO time on."),
    ] = None,
) -> None:
    """Print verdicts, anomalies and cameras in trouble as they were told on `loupe.events`.

    With `--follow` from now on, else all that Kafka keeps, oldest first; `--since` says otherwise.

    For example:

    - `loupe events --follow --anomalies`
    - `loupe events --since 10m --json`
    """
    start = None if since is None else parse_since(since, datetime.now(UTC))
    reader = KafkaTopicReader(kafka_address())
    try:
        for event in events_of(reader, follow=follow, start=start):
            if not anomalies or event["data"].get("is_anomalous"):
                _print(event, as_json=as_json)
    finally:
        reader.close()


def parse_since(text: str, now: datetime) -> datetime:
    """Return the time that a person means by `10m` or by an ISO time.

    Raises:
        BadRequest: neither.
    """
    number, unit = text[:-1], text[-1:]
    try:
        if unit in _UNITS_S and number.isascii() and number.isdigit():
            return now - timedelta(seconds=int(number) * _UNITS_S[unit])
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError) as error:
        raise BadRequest(
            f"{text!r} is no time; write 90s, 10m, 2h, 1d or 2026-11-21T10:00:00+00:00"
        ) from error


def events_of(reader: TopicReader, *, follow: bool, start: datetime | None) -> Iterator[dict[str, Any]]:
    """Return events from `start` on, for ever or as far as there are any; else from now, or all.

    Records of the open topic that are none of Loupe's events are left out.
    """
    records = _following(reader, start) if follow else _kept(reader, start)
    return (event for record in records if (event := _event_of(record)) is not None)


def _event_of(record: Record) -> dict[str, Any] | None:
    try:
        event: dict[str, Any] = json.loads(record.value)
        bool(event["data"]["state" if event.get("type") == CAMERA_TYPE else "is_anomalous"])
    except (ValueError, TypeError, KeyError):
        return None
    return event


def _following(reader: TopicReader, start: datetime | None) -> Iterator[Record]:
    if start is None:
        starts = {partition: span.stop for partition, span in reader.spans(EVENTS.name).items()}
    else:
        starts = reader.offsets_at(EVENTS.name, start)
    return (record for record in reader.scan(EVENTS.name, starts) if record is not None)


def _kept(reader: TopicReader, start: datetime | None) -> list[Record]:
    """Return the records that are there now, oldest first over all partitions."""
    spans = reader.spans(EVENTS.name)
    starts = reader.offsets_at(EVENTS.name, start) if start else {n: span.start for n, span in spans.items()}
    wanted = {n: range(starts[n], span.stop) for n, span in spans.items() if n in starts}
    return sorted(read_up_to(reader, EVENTS.name, wanted), key=lambda record: record.timestamp_ms)


def _print(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(event))
    else:
        console.print(_line(event), soft_wrap=True)


def _line(event: dict[str, Any]) -> Text:
    if event.get("type") == CAMERA_TYPE:
        return _camera_line(event)
    told, line = event["data"], Text()
    is_anomalous = told["is_anomalous"]
    line.append(f"{_clock(told.get('judged_at') or event.get('time'))}  ", "dim")
    line.append(f"{told.get('camera', ''):<16} ")
    line.append(f"{'anomaly' if is_anomalous else 'normal':<8}", "bold red" if is_anomalous else "green")
    line.append(f" score {_number(told.get('score'))}  confidence {_number(told.get('confidence'))}")
    if told.get("is_uncertain"):
        line.append("  uncertain", "yellow")
    for name in ("part_id", "lot_id", "source"):
        if told.get(name):
            line.append(f"  {name.removesuffix('_id')} {told[name]}", "dim")
    return line


def _camera_line(event: dict[str, Any]) -> Text:
    told, line = event["data"], Text()
    line.append(f"{_clock(told.get('since') or event.get('time'))}  ", "dim")
    line.append(f"{told.get('camera', ''):<16} ")
    line.append(f"{told['state']:<8}", "yellow" if told["state"] in TROUBLED else "green")
    line.append(f" {told.get('message') or 'The camera is well again.'}")
    line.append(f"  before {told.get('previous', '?')}", "dim")
    return line


def _clock(time: Any) -> str:
    try:
        return datetime.fromisoformat(str(time)).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return "?"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "?"
