"""What `loupe ledger` prints: balances as a table, the proof as a table of checks, both as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from services.cli.layout import Cell, Column, Room, open_console, print_list
from services.domain.ledger import CameraBalance, all_balanced

if TYPE_CHECKING:
    from services.results.proof import Progress as Hearing
    from services.results.proof import Proof

console = open_console()
Balances = Mapping[str, CameraBalance]

# Frames named per camera, and findings of a proof; all of them are in the JSON.
_SHOWN_MISSING, _SHOWN_FINDINGS = 5, 20


def print_balances(balances: Balances, *, as_json: bool) -> None:
    """Print the quick form."""
    if as_json:
        typer.echo(json.dumps(_balances_json(balances), indent=1))
        return
    if not balances:
        console.print("No frame has been captured yet.")
        return
    _show_balances(balances)
    for camera, one in balances.items():
        for frame_id in one.missing[:_SHOWN_MISSING]:
            console.print(Text.assemble(("missing", "red"), f" {camera} {frame_id}"))
        if one.missing_count > _SHOWN_MISSING:
            more = f"        and {one.missing_count - _SHOWN_MISSING} more of {camera}: --json names them"
            console.print(Text(more))


def print_proof(proof: Proof, *, as_json: bool) -> None:
    """Print the checks, and what they found."""
    if as_json:
        _print_proof_json(proof)
        return
    if proof.balances:
        _show_balances(proof.balances)
        console.print()
    _show_checks(proof)
    findings = proof.findings()
    for finding in islice(findings, _SHOWN_FINDINGS):
        console.print(_finding_line(finding))
    if next(findings, None):
        console.print("        and more: --json names them all")
    console.print("[green]proved[/]" if proof.is_proved else "[red]not proved[/]")


@contextmanager
def bars() -> Iterator[Hearing]:
    """Show how far a long proof has come, on standard error."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        tasks = {}

        def hear(check: str, done: int, total: int) -> None:
            if check not in tasks:
                tasks[check] = progress.add_task(check, total=total)
            progress.update(tasks[check], completed=done, total=total)

        yield hear


def _balances_json(balances: Balances) -> dict[str, object]:
    cameras = {
        camera: {**asdict(one), "missing": [str(frame_id) for frame_id in one.missing]}
        for camera, one in balances.items()
    }
    return {"balanced": all_balanced(balances), "cameras": cameras}


def _print_proof_json(proof: Proof) -> None:
    """Print one JSON object, finding by finding: there may be more than fit into memory."""
    head = {
        "proved": proof.is_proved,
        **_balances_json(proof.balances),
        "checks": {name: asdict(one) for name, one in proof.checks.items()},
    }
    typer.echo(json.dumps(head)[:-1] + ', "findings": [')
    comma = ""
    for finding in proof.findings():
        typer.echo(comma + json.dumps(finding), nl=False)
        comma = ",\n"
    typer.echo("]}")


def _show_balances(balances: Balances) -> None:
    columns = (
        Column("  camera"),
        *(Column(name, is_right=True) for name in ("captured", "judged", "quarantined", "shed", "missing")),
        Column("", room=Room.BELOW),
    )
    rows: list[Sequence[Cell]] = [
        (_marked(one.is_balanced, camera), *_numbers(one), _reasons(one.shed_by_reason))
        for camera, one in balances.items()
    ]
    if len(balances) > 1:
        counts = [[int(number) for number in _numbers(one)] for one in balances.values()]
        sums = (str(sum(column)) for column in zip(*counts, strict=True))
        reasons = sum((Counter(one.shed_by_reason) for one in balances.values()), Counter())
        rows.append((_marked(all_balanced(balances), "all"), *sums, _reasons(reasons)))
    print_list(console, columns, rows)


def _marked(is_right: bool, name: str) -> Text:
    return Text.assemble(("✓ ", "green") if is_right else ("✗ ", "red"), name)


def _numbers(one: CameraBalance) -> list[str]:
    return [str(n) for n in (one.captured, one.judged, one.quarantined, one.shed, one.missing_count)]


def _reasons(shed: Mapping[str, int]) -> Text:
    told = "shed: " + ", ".join(f"{why} {count}" for why, count in sorted(shed.items())) if shed else ""
    return Text(told, "dim")


def _show_checks(proof: Proof) -> None:
    from services.results.proof import CHECKS

    columns = (
        Column("  check"),
        *(Column(name, is_right=True) for name in ("looked at", "wrong", "noted")),
        Column("", room=Room.BELOW),
    )
    rows: list[Sequence[Cell]] = []
    for name, what in CHECKS.items():
        if (one := proof.checks.get(name)) is not None:
            told = what + (f" ({one.told})" if one.told else "")
            numbers = (str(n) for n in (one.looked_at, one.wrong, one.noted))
            rows.append((_marked(not one.wrong, name), *numbers, Text(told, "dim")))
    print_list(console, columns, rows)


def _finding_line(finding: dict[str, object]) -> Text:
    facts = " ".join(
        f"{name}={value}" for name, value in finding.items() if name not in {"check", "finding", "is_wrong"}
    )
    style = "red" if finding["is_wrong"] else "yellow"
    return Text.assemble((str(finding["finding"]), style), f" {facts}")
