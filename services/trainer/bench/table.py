"""Records of trials -> the rows of a table, one per set, protocol, families and backbone (arrow 6).

Figures are means over seeds. Intervals are of photos, not of seeds: the same photos are tested again with
every seed, so more seeds do not make them narrower. Prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer.bench.protocols import Protocol
from services.trainer.bench.trial import TrialRecord

_NOTHING = "–"
_TITLES = {
    Protocol.NORMALS_ONLY: "Normals only: no anomaly is seen before the test",
    Protocol.SUPERVISED: "Supervised: five folds over the labelled anomalies",
}
# What tells one row from another.
_ROW_KEYS = ("protocol", "set_name", "families", "backbone")


@dataclass(frozen=True, slots=True)
class Row:
    """All seeds of one configuration.

    Attributes:
        records: that came to figures.
        reason: why there are none.
    """

    key: tuple[str, str, str, str]
    records: tuple[TrialRecord, ...]
    reason: str = ""

    def mean(self, group: str, name: str) -> float | None:
        """Return the mean of a figure over seeds, None where no seed has it."""
        values = [record[group][name] for record in self.records if name in record[group]]
        return sum(values) / len(values) if values else None

    def interval(self, name: str) -> tuple[float, float] | None:
        """Return the mean ends of a metric's intervals."""
        ends = [record["intervals"][name] for record in self.records if name in record["intervals"]]
        if not ends:
            return None
        return sum(low for low, _ in ends) / len(ends), sum(high for _, high in ends) / len(ends)

    @property
    def seeds(self) -> int:
        """How many."""
        return len(self.records)


def rows_of(records: Sequence[TrialRecord]) -> tuple[Row, ...]:
    """Return the rows in the order in which their first record stands."""
    by_key: dict[tuple[str, ...], list[TrialRecord]] = {}
    for record in records:
        by_key.setdefault(tuple(record[name] for name in _ROW_KEYS), []).append(record)
    rows = []
    for key, members in by_key.items():
        protocol, set_name, families, backbone = key
        measured = tuple(one for one in members if "reason" not in one)
        reasons = [one["reason"] for one in members if "reason" in one]
        rows.append(Row((protocol, set_name, families, backbone), measured, reasons[0] if reasons else ""))
    return tuple(rows)


def ratio(value: float | None) -> str:
    """Return a share or an area as papers write it.

    >>> ratio(0.99456), ratio(1.0), ratio(None)
    ('.995', '1.000', '–')
    """
    if value is None:
        return _NOTHING
    return f"{value:.3f}".removeprefix("0")


def with_interval(value: float | None, ends: tuple[float, float] | None) -> str:
    """Return a share with its interval.

    >>> with_interval(0.05, (0.0, 0.2215))
    '.05 [.00–.22]'
    """
    if value is None:
        return _NOTHING
    short = [f"{one:.2f}".removeprefix("0") for one in (value, *(ends or ()))]
    return short[0] if ends is None else f"{short[0]} [{short[1]}–{short[2]}]"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column.

    Attributes:
        is_first: it stays where there is no room for all.
    """

    name: str
    cell: Callable[[Row], str]
    is_first: bool = False


def _metric(name: str) -> Callable[[Row], str]:
    return lambda row: ratio(row.mean("metrics", name))


def _spread(name: str) -> Callable[[Row], str]:
    return lambda row: with_interval(row.mean("metrics", name), row.interval(name))


def _cost(name: str, per: float, digits: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.mean("cost", name)
        return _NOTHING if value is None else f"{value / per:.{digits}f}"

    return cell


def _types(row: Row) -> str:
    """Return F1 and mean IoU of each named type."""
    told = []
    for name in sorted({one["name"] for record in row.records for one in record["types"]}):
        same = [one for record in row.records for one in record["types"] if one["name"] == name]
        means = [
            sum(one[figure] for one in same) / len(same) if all(figure in one for one in same) else None
            for figure in ("f1", "mean_iou")
        ]
        if means != [None, None]:
            told.append(f"{name} {ratio(means[0])} / {ratio(means[1])}")
    return ", ".join(told) or _NOTHING


def _chosen(row: Row) -> str:
    """Return the families; of auto also what it chose, as often as there are choices."""
    families = row.key[2]
    chosen = sorted({name for record in row.records for name in record["chosen"]})
    return families if chosen in ([], [families]) else f"{families} ({', '.join(chosen)})"


def _serving(row: Row) -> str:
    names = sorted({name for record in row.records for name in record["serving"]})
    milliseconds = _cost("serving_ms", 1, 1)(row)
    return milliseconds if names in ([], ["fp32"]) else f"{milliseconds} {'/'.join(names)}"


COLUMNS: tuple[TableColumn, ...] = (
    TableColumn("set", lambda row: row.key[1], is_first=True),
    TableColumn("train; test", lambda row: next((one["photos"] for one in row.records), _NOTHING)),
    TableColumn("families", _chosen, is_first=True),
    TableColumn("backbone", lambda row: Path(row.key[3]).stem if row.key[3] else "default"),
    TableColumn("seeds", lambda row: str(row.seeds)),
    TableColumn("image AUROC", _metric("image_auroc"), is_first=True),
    TableColumn("AUPRO", _metric("aupro"), is_first=True),
    TableColumn("pixel AUROC", _metric("pixel_auroc"), is_first=True),
    TableColumn("F1", _spread("f1")),
    TableColumn("false rejects", _spread("false_reject_ratio"), is_first=True),
    TableColumn("recall", _spread("recall_ratio"), is_first=True),
    TableColumn("type F1 / mean IoU", _types),
    TableColumn("fit s", _cost("fit_s", 1, 1), is_first=True),
    TableColumn("ms fp32", _cost("ms", 1, 1)),
    TableColumn("ms serving", _serving, is_first=True),
    TableColumn("MiB", _cost("file_bytes", 2**20, 1)),
    TableColumn("peak MiB", _cost("peak_rss_bytes", 2**20, 0)),
)


def columns_for(rows: Sequence[Row]) -> tuple[TableColumn, ...]:
    """Return the columns that any of the rows fills."""
    return tuple(one for one in COLUMNS if any(one.cell(row) != _NOTHING for row in rows))


def sections(records: Sequence[TrialRecord]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """Return (title, rows) per protocol: figures of two protocols never stand in one table."""
    rows = rows_of(records)
    by_protocol = [(_TITLES[one], tuple(row for row in rows if row.key[0] == one)) for one in Protocol]
    return tuple((title, found) for title, found in by_protocol if found)


def markdown(document: Mapping[str, Any]) -> str:
    """Return a run as Markdown tables for a README, with date, machine and command."""
    machine = document["machine"]
    lines = [
        f"{document['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, "
        f"load average {machine['load']}. `{document['command']}`. Means over seeds, 95 % intervals of "
        "photos in brackets; pixel figures at 224 × 224 over normals and masked anomalies, AUPRO up to 30 % "
        "false positives; ms an image at batch 1 on two threads.",
    ]
    for title, rows in sections(document["trials"]):
        measured = [row for row in rows if row.records]
        columns = columns_for(measured)
        lines += ["", f"**{title}**", ""]
        if measured:
            lines.append(_line([one.name for one in columns]))
            lines.append("|" + "---|" * len(columns))
        lines += [_line([one.cell(row) for one in columns]) for row in measured]
        lines += reasons(rows)
    return "\n".join(lines) + "\n"


def reasons(rows: Sequence[Row]) -> list[str]:
    """Return a sentence per row that has no figures."""
    return [f"{row.key[1]}, {row.key[2]}: not possible. {row.reason}" for row in rows if row.reason]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
