"""`loupe dataset`: what a project's dataset holds, what is wrong with it, who learnt from it (arrow 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from services.cli.layout import Column, Room, open_console, print_below, print_facts, print_list
from services.cli.settings import database_address, object_store
from services.domain.errors import BadRequest

if TYPE_CHECKING:
    from services.trainer.dataset_versions import DatasetVersion, Finding, Snapshot

console = open_console()
# As short as git's; the JSON has it whole.
_DIGEST_CHARS = 12
_SPLITS = {"any": "as a fit splits"}
# Findings that are printed; the JSON has all.
_SHOWN = 20


def dataset(
    project: Annotated[str, typer.Argument(help="Whose dataset.")],
    versions: Annotated[
        bool, typer.Option("--versions", help="Show what trainings saw, and the models made of it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show what the next training would read: counts, masks, and labels that contradict each other.

    A version of a dataset is what a training saw, kept for ever under its digest; a model names its.

    Example: `loupe dataset caps --versions`
    """
    from services.adapters.database import open_engine
    from services.trainer.dataset_versions import DatasetVersions, snapshot_of
    from services.trainer.datasets import Datasets

    engine = open_engine(database_address())
    try:
        store = object_store()
        snapshot = snapshot_of(Datasets(engine, store).all_entries(project))
        seen = DatasetVersions(engine, store).of_project(project)[::-1]
    finally:
        engine.dispose()
    if as_json:
        typer.echo(json.dumps(as_data(project, snapshot, seen), indent=1))
        return
    if not snapshot.entries and not snapshot.findings and not seen:
        raise BadRequest(f"Nothing of {project} is labelled. Label pictures: loupe label DIR -p {project}")
    if versions:
        _print_versions(seen)
    else:
        _print_snapshot(project, snapshot, seen)


def as_data(project: str, snapshot: Snapshot, seen: Sequence[DatasetVersion]) -> dict[str, Any]:
    """Return what `--json` prints."""
    from services.trainer.dataset_versions import counts_of

    return {
        "project": project,
        "images": len(snapshot.entries),
        **counts_of(snapshot.entries),
        "findings": [asdict(one) for one in snapshot.findings],
        "versions": [
            {
                **asdict(one),
                "created_at": one.created_at.isoformat(),
                "seen_at": one.seen_at.isoformat(),
            }
            for one in seen
        ],
    }


def _print_snapshot(project: str, snapshot: Snapshot, seen: Sequence[DatasetVersion]) -> None:
    from services.trainer.dataset_versions import BY_LOOKING, counts_of

    counts = counts_of(snapshot.entries)
    facts: dict[str, str | Text] = {"project": project, "images": _listed(counts["verdicts"]) or "none"}
    if counts["types"]:
        facts["types"] = _listed(counts["types"])
    facts["masks"] = str(counts["masks"])
    facts["splits"] = _listed({_SPLITS.get(name, name): n for name, n in counts["splits"].items()}) or "none"
    facts["trained"] = "never"
    if seen:
        last = seen[0]
        digest = last.digest[:_DIGEST_CHARS]
        facts["trained"] = f"{last.seen_at:%Y-%m-%d %H:%M} UTC from {last.images} images ({digest})"
    print_facts(console, facts)
    # What only looking at the pictures tells is known of the version that was trained last.
    looked = [one for one in (seen[0].findings if seen else ()) if one.kind in BY_LOOKING]
    _print_findings([*snapshot.findings, *looked])


def _print_versions(seen: Sequence[DatasetVersion]) -> None:
    if not seen:
        console.print("No training has read it yet.")
        return
    columns = (
        Column("digest"),
        Column("images", is_right=True),
        Column("normal", is_right=True),
        Column("anomaly", is_right=True),
        Column("masks", is_right=True, room=Room.WIDE),
        Column("found", is_right=True),
        Column("last read"),
        Column("models", room=Room.BELOW),
    )
    rows = [
        (
            one.digest[:_DIGEST_CHARS],
            str(one.images),
            str(one.counts["verdicts"].get("normal", 0)),
            str(one.counts["verdicts"].get("anomaly", 0)),
            str(one.counts["masks"]),
            str(len(one.findings)),
            f"{one.seen_at:%Y-%m-%d %H:%M}",
            ", ".join(one.model_versions),
        )
        for one in seen
    ]
    print_list(console, columns, rows)


def _print_findings(findings: Sequence[Finding]) -> None:
    for one in findings[:_SHOWN]:
        console.print(Text(one.kind, "yellow"))
        print_below(console, one.sentence)
    if len(findings) > _SHOWN:
        console.print(f"[dim]and {len(findings) - _SHOWN} more: --json has all[/]")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items())
