"""What came of promises -> a table, by promise and number of photos, over all lines (arrow 6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.domain.errors import BadRequest
from services.trainer.bench.machine import this_machine
from services.trainer.bench.promise import Kept
from services.trainer.bench.shares import wilson


def document_of(kept: Sequence[Kept], command: str) -> dict[str, Any]:
    """Return what is written of promises."""
    return {"command": command, "machine": asdict(this_machine()), "promises": [asdict(one) for one in kept]}


def read(out: Path) -> tuple[Kept, ...]:
    """Return what a file holds; nothing where there is no file.

    Raises:
        BadRequest: it is no file of promises.
    """
    if not out.is_file():
        return ()
    try:
        return tuple(Kept(**one) for one in json.loads(out.read_text())["promises"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"{out} is not a file of `loupe bench --promise`; give another with --out."
        raise BadRequest(message, file=str(out)) from error


@dataclass(frozen=True, slots=True)
class PromiseRow:
    """One promise with one number of photos, over all lines.

    Attributes:
        fresh: good parts judged, of all lines together.
        false_reject_ratio: among them, with its 95 % interval.
        worst_ratio: of the line where most were rejected.
    """

    promise: float
    fit_photos: int
    fresh: int
    false_reject_ratio: float
    interval: tuple[float, float]
    worst_ratio: float
    recall_ratio: float


def rows_of(kept: Sequence[Kept]) -> tuple[PromiseRow, ...]:
    """Return the rows, by promise and photos."""
    rows = []
    for promise, count in sorted({(one.promise, one.fit_photos) for one in kept}):
        same = [one for one in kept if (one.promise, one.fit_photos) == (promise, count)]
        fresh = sum(one.fresh for one in same)
        mean = sum(one.false_reject_ratio * one.fresh for one in same) / fresh
        rows.append(
            PromiseRow(
                promise,
                count,
                fresh,
                mean,
                wilson(mean, fresh),
                max(one.false_reject_ratio for one in same),
                sum(one.recall_ratio for one in same) / len(same),
            )
        )
    return tuple(rows)


COLUMNS: tuple[tuple[str, Callable[[PromiseRow], str]], ...] = (
    ("promised", lambda row: f"{row.promise:.1%}"),
    ("photos", lambda row: str(row.fit_photos)),
    ("fresh good parts", lambda row: str(row.fresh)),
    (
        "false rejects",
        lambda row: f"{row.false_reject_ratio:.2%} [{row.interval[0]:.2%}–{row.interval[1]:.2%}]",
    ),
    ("worst line", lambda row: f"{row.worst_ratio:.2%}"),
    ("recall", lambda row: f"{row.recall_ratio:.1%}"),
)


def markdown(rows: Sequence[PromiseRow], *, command: str) -> str:
    """Return the rows as a Markdown table for a README, with date, machine and command."""
    lines = [
        f"{datetime.now(UTC).date().isoformat()}, {this_machine()}. `{command}`. Brackets: 95 % intervals.",
        "",
        "| " + " | ".join(name for name, _ in COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cell(row) for _, cell in COLUMNS) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"
