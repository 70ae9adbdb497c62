"""`loupe evaluate`: a detector on labelled photos. Parses, asks `services.trainer.evaluating`, prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from services.cli.layout import Cell, Column, open_console, print_facts, print_list
from services.cli.report_file import check_report, write_report
from services.embedded.settings import EmbeddedSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.domain.model_version import Manifest
    from services.trainer.dataset import SkippedImage
    from services.trainer.evaluation.by_type import TypeRow
    from services.trainer.evaluation.outcome import Outcome
    from services.trainer.evaluation.report import Evaluation

console = open_console()
# Name in the report -> what a person calls it, in the order in which they are told.
_METRICS = {
    "precision_ratio": "precision",
    "recall_ratio": "recall",
    "f1": "F1",
    "accuracy_ratio": "accuracy",
    "image_auroc": "image AUROC",
    "average_precision": "average precision",
    "aupro": "AUPRO",
    "pixel_auroc": "pixel AUROC",
}
_WORST, _LEFT_OUT = 5, 3
# The type of masks that nobody named.
_UNNAMED = "anomaly"


def evaluate(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Which detector is measured.")],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Labelled photos: folders `normal` and `anomaly`, and masks if there are any."
        ),
    ],
    version: Annotated[str, typer.Option(help="Which version; else the one that serves.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report here as JSON.")
    ] = None,
) -> None:
    """Measure a detector on labelled photos that it has not learnt from.

    Judges every photo of DIR in this process, with and without a running stack, and learns nothing from
    them. Where DIR says what trains and what tests, what tests is judged. The exit code says whether it could
    be measured, not how good it is.

    Example: `loupe evaluate cookies photos/test --report report.json`
    """
    # A second of libraries that `loupe evaluate --help` does not need.
    from services.embedded.judges import open_version
    from services.embedded.stack import running_stack
    from services.trainer.evaluating import judge_photos, read_test_photos

    check_report(report)
    photos = read_test_photos(folder)
    settings = EmbeddedSettings()
    model = open_version(settings.home_folder, running_stack(settings), project, version)
    with _progress(is_shown=not as_json) as tell:
        judged = judge_photos(photos, model, tell)
    evaluation = judged.evaluation()
    document = report_of(evaluation, model.manifest, judged.skipped)
    write_report(report, document)
    if as_json:
        typer.echo(json.dumps(document))
        return
    _show(evaluation, model.manifest, judged.skipped)
    if report is not None:
        console.print(f"Report: {escape(str(report))}")


def report_of(evaluation: Evaluation, manifest: Manifest, skipped: Sequence[SkippedImage]) -> dict[str, Any]:
    """Return the report as JSON values: the evaluation, which version it is of, and what was left out."""
    return {
        "project": manifest.project,
        "version": manifest.version,
        "threshold": manifest.calibration.threshold,
        "max_false_reject_ratio": manifest.calibration.max_false_reject_ratio,
        **evaluation.to_json(),
        "skipped": [{"name": one.name, "reason": one.reason} for one in skipped],
    }


def worst_mistakes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the photos that were judged wrongly, the one that the version was surest of first."""
    wrong = [one for one in outcomes if one.is_anomalous != one.is_found_anomalous]
    return sorted(wrong, key=lambda one: (-one.confidence, one.name))


def _show(evaluation: Evaluation, manifest: Manifest, skipped: Sequence[SkippedImage]) -> None:
    outcomes, counts = evaluation.outcomes, evaluation.counts
    anomalous = sum(one.is_anomalous for one in outcomes)
    console.print(
        f"{escape(manifest.project)} {escape(manifest.version)} judged {len(outcomes)} photos, "
        f"{len(outcomes) - anomalous} normal and {anomalous} anomalous."
    )
    print_facts(console, _facts(evaluation, manifest))
    console.print(
        f"\nOf {anomalous} anomalous photos {counts.true_positives} were found and {counts.false_negatives} "
        f"missed; of {len(outcomes) - anomalous} normal ones {counts.true_negatives} passed and "
        f"{counts.false_positives} were rejected."
    )
    _show_types(told_types(evaluation.types))
    _show_mistakes(outcomes)
    if skipped:
        left_out = "1 file was" if len(skipped) == 1 else f"{len(skipped)} files were"
        console.print(f"\n[yellow]Note:[/] {left_out} left out:")
        for one in skipped[:_LEFT_OUT]:
            console.print(f"  {escape(one.name)}: {escape(one.reason)}")
        if len(skipped) > _LEFT_OUT:
            console.print(f"  and {len(skipped) - _LEFT_OUT} more, all in the report")


def _facts(evaluation: Evaluation, manifest: Manifest) -> dict[str, Cell]:
    """Return the metrics that the photos define, with their intervals."""
    facts: dict[str, Cell] = {}
    if "false_reject_ratio" in evaluation.metrics:
        promise = manifest.calibration.max_false_reject_ratio
        told = _told(evaluation, "false_reject_ratio", is_percent=True)
        facts["false rejects"] = f"{told}; promised: at most {promise:.1%}"
    for name, called in _METRICS.items():
        if name in evaluation.metrics:
            facts[called] = _told(evaluation, name)
    return facts


def _told(evaluation: Evaluation, name: str, *, is_percent: bool = False) -> str:
    """Return a metric with its 95 % interval, unless that has no width: it says nothing of other photos."""
    numbers = (evaluation.metrics[name], *evaluation.intervals.get(name, (0, 0)))
    value, low, high = (f"{one:.1%}" if is_percent else f"{one:.3f}" for one in numbers)
    return value if low == high else f"{value} (95 %: {low} to {high})"


def told_types(rows: Sequence[TypeRow]) -> list[TypeRow]:
    """Return the types that a photo has, or was found to have; what nobody named is none by itself."""
    return [row for row in rows if row.f1 is not None or (row.images and row.name != _UNNAMED)]


def _show_types(rows: Sequence[TypeRow]) -> None:
    """Print what became of each anomaly type."""
    if not rows:
        return
    console.print()
    columns = (
        Column("anomaly type"),
        *(Column(name, is_right=True) for name in ("photos", "missed", "F1", "mean IoU")),
        Column("called"),
    )
    cells = [
        (
            row.name,
            str(row.images),
            str(row.missed),
            "" if row.f1 is None else f"{row.f1:.3f}",
            "" if row.mean_iou is None else f"{row.mean_iou:.3f}",
            ", ".join(f"{name} {count}" for name, count in sorted(row.named_as.items())),
        )
        for row in rows
    ]
    print_list(console, columns, cells)


def _show_mistakes(outcomes: Sequence[Outcome]) -> None:
    """Print the worst false alarms and misses by name."""
    wrong = worst_mistakes(outcomes)
    for heading, mistakes in (
        ("Good parts rejected", [one for one in wrong if one.is_found_anomalous]),
        ("Anomalies missed", [one for one in wrong if not one.is_found_anomalous]),
    ):
        if not mistakes:
            continue
        more = f", and {len(mistakes) - _WORST} more" if len(mistakes) > _WORST else ""
        console.print(f"\n[bold]{heading}[/], the surest mistakes first{more}:")
        for one in mistakes[:_WORST]:
            console.print(f"  {escape(one.name)}, score {one.score:.2f}, {one.confidence:.0%} sure")


@contextmanager
def _progress(*, is_shown: bool) -> Iterator[Callable[[float], None]]:
    columns = (TextColumn("judging"), BarColumn(), TimeRemainingColumn())
    shown = is_shown and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bars:
        task = bars.add_task("judging", total=1.0)
        yield lambda done_ratio: bars.update(task, completed=done_ratio)
