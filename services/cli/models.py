"""`loupe models`: the versions of each project's model, why they serve or do not, and the way back (arrow 6).

Parses, calls `services.trainer.registry`, prints. Works without a running stack: the registry is a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from services.cli.layout import Column, Room, open_console, print_list
from services.domain.errors import BadRequest, UnknownProject
from services.domain.model_version import VersionState

if TYPE_CHECKING:
    from services.domain.model_version import ModelAnnouncement
    from services.trainer.registry import Registry, VersionRecord

console = open_console()
_PRODUCE_TIMEOUT_S = 30.0
_DIGEST_CHARS = 8
_SERVES = "serves"
_COLOURS = {_SERVES: "green", VersionState.KEPT: "yellow", VersionState.CANDIDATE: "dim"}
_NOT_DECIDED = "Not decided yet: its training runs, or was killed; then it is considered again with it."


def models(
    project: Annotated[str | None, typer.Argument(metavar="[PROJECT]", help="All its versions.")] = None,
    promote: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Have this version serve, whatever was decided.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is promoted by hand; kept with the version.")] = "",
    author: Annotated[str | None, typer.Option(help="Who promotes; your login name if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the versions of a project's model, newest first; or of each project the one that serves.

    A version serves once it has proved itself and is no worse than the one before it; one that was kept back
    says why. Promoting an older version is the way back: it serves until the next promotion.

    For example: `loupe models caps --promote v20261121-104058-ab12 --reason "misses scratches"`
    """
    with _registry() as registry:
        if promote is not None:
            _promote(registry, project, promote, reason, author)
            return
        projects = (project,) if project else registry.projects()
        records = {name: _records(registry, name, is_wanted=name == project) for name in projects}
    if as_json:
        told = {name: [_as_json(one, state) for one, state in found] for name, found in records.items()}
        typer.echo(json.dumps(told[project] if project else told, indent=1))
    elif project is None:
        serving = [(name, one, state) for name, found in records.items() for one, state in found
                   if state == _SERVES]  # fmt: skip
        _show("project", [(name, one, state) for name, one, state in serving])
    else:
        _show("version", [(one.version, one, state) for one, state in records[project]])


@contextmanager
def _registry() -> Iterator[Registry]:
    """Give the registry that the environment names, else the home's own; the stack need not run."""
    from services.adapters.database import migrate, open_engine
    from services.adapters.object_store.store import memory_store
    from services.cli.settings import ReadingSettings
    from services.embedded.settings import EmbeddedSettings
    from services.trainer.registry import Registry

    url = ReadingSettings().database_url
    if url is None:
        home = EmbeddedSettings().home_folder
        if not home.path.is_dir():
            raise UnknownProject("There is no project yet. Make one: loupe fit DIR --project NAME")
        url = home.database_url
        migrate(url)
    engine = open_engine(url)
    try:
        yield Registry(engine, memory_store())  # rows only; no version is fetched here
    finally:
        engine.dispose()


def _records(registry: Registry, project: str, *, is_wanted: bool) -> list[tuple[VersionRecord, str]]:
    """Return versions with their states, newest first; none of a project without, unless it was asked for."""
    try:
        records = registry.records(project)
    except UnknownProject:
        if is_wanted:
            raise
        return []
    promoted = any(one.state is VersionState.PROMOTED for one in records)
    serving = registry.latest(project).version if promoted else None
    return [(one, _SERVES if one.version == serving else one.state.value) for one in reversed(records)]


def _promote(registry: Registry, project: str | None, version: str, reason: str, author: str | None) -> None:
    from services.cli.label import login_name

    if project is None:
        raise BadRequest("Say whose version it is: loupe models PROJECT --promote VERSION")
    now = datetime.now(UTC)
    said = registry.promote(project, version, author=author or login_name(), reason=reason, at=now)
    is_announced = _announce(said)
    record = registry.record(project, version)
    if record.decided_at != now:
        console.print(Text.assemble((project, "green"), f": version {version} is the one to serve already."))
    else:
        console.print(Text.assemble((project, "green"), f": version {version} is promoted."))
        if record.evidence["by_hand"][-1]["was"] == VersionState.KEPT:
            console.print(Text.assemble(("It had been kept: ", "yellow"), " ".join(record.reasons)))
    if not is_announced:
        console.print("The stack does not run; `loupe up` will host this version.")


def _announce(said: ModelAnnouncement) -> bool:
    """Tell hosting; return False where no stack runs, which finds the promotion in the registry later."""
    from services.adapters.broker.kafka import KafkaBrokerProducer
    from services.cli.settings import ReadingSettings
    from services.embedded.settings import EmbeddedSettings
    from services.embedded.stack import running_stack
    from services.wire.model import encode_announcement

    bootstrap = ReadingSettings().kafka_bootstrap
    if bootstrap is None:
        stack = running_stack(EmbeddedSettings())
        if stack is None:
            return False
        bootstrap = stack.kafka_bootstrap
    producer = KafkaBrokerProducer(bootstrap)
    try:
        producer.send(encode_announcement(said)).result(_PRODUCE_TIMEOUT_S)
    finally:
        producer.close()
    return True


def _show(key: str, rows: Sequence[tuple[str, VersionRecord, str]]) -> None:
    columns = (
        Column(key),
        *([Column("version")] if key != "version" else []),
        Column("state"),
        Column("made"),
        Column("AUROC", is_right=True),
        Column("rejects", is_right=True),
        Column("recall", is_right=True),
        Column("family", room=Room.BELOW),
        Column("data", room=Room.BELOW),
        Column("", room=Room.BELOW),
    )
    print_list(console, columns, [_row(key, *row) for row in rows])


def _row(key: str, name: str, one: VersionRecord, state: str) -> list[str | Text]:
    numbers = _numbers(one)
    family = f"{one.family}, update of {one.parent}" if one.parent else one.family
    return [
        name,
        *([one.version] if key != "version" else []),
        Text(state, _COLOURS.get(state, "")),
        one.announcement.created_at.astimezone().strftime("%m-%d %H:%M"),
        _number(numbers["image_auroc"], "{:.3f}"),
        _number(numbers["false_reject_ratio"], "{:.1%}"),
        _number(numbers["recall_ratio"], "{:.1%}"),
        family,
        one.data_digest[:_DIGEST_CHARS],
        _why(one),
    ]


def _why(one: VersionRecord) -> str:
    by_hand = [
        f"Promoted by {said['author']}{': ' if said['reason'] else ''}{said['reason']}."
        for said in one.evidence.get("by_hand", ())
    ]
    if one.state is VersionState.CANDIDATE:
        return _NOT_DECIDED
    return " ".join([*one.reasons, *by_hand])


def _numbers(one: VersionRecord) -> dict[str, float | None]:
    """Return what is known of a version's quality: by its replay where there was one, else by its fit."""
    metrics, replayed = one.metrics, one.evidence.get("candidate") or {}
    rejects = metrics.get("false_reject_ratio", metrics.get("cross_fitted_false_reject_ratio"))
    recall = metrics.get("recall_ratio")
    if replayed.get("normals"):
        rejects = replayed["false_rejects"] / replayed["normals"]
    if replayed.get("anomalies"):
        recall = replayed["found"] / replayed["anomalies"]
    return {
        "image_auroc": metrics.get("image_auroc"),
        "false_reject_ratio": rejects,
        "recall_ratio": recall,
    }


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _as_json(one: VersionRecord, state: str) -> dict[str, Any]:
    said = one.announcement
    return {
        "version": one.version,
        "state": one.state.value,
        "serves": state == _SERVES,
        "created_at": said.created_at.isoformat(),
        "decided_at": one.decided_at.isoformat() if one.decided_at else None,
        "family": one.family,
        "data_digest": one.data_digest,
        "parent": one.parent,
        "training_id": said.training_id,
        "uri": said.uri,
        **_numbers(one),
        "metrics": dict(one.metrics),
        "reasons": list(one.reasons),
        "evidence": dict(one.evidence),
    }
