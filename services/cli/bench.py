"""`loupe bench`: families and backbones on real photos. Parses, calls `services.trainer.bench`, prints."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from services.cli.layout import Column, Room, open_console, print_list
from services.cli.report_file import check_report
from services.domain.errors import BadRequest
from services.domain.model_version import check_promise

if TYPE_CHECKING:
    from services.trainer.bench.run import Step
    from services.trainer.bench.table import Row

console = open_console()
# Tables are for a pipe, too; how far it is, is not.
progress = open_console(stderr=True)
# What the synthetic line films; large enough to show what a camera does.
_LINE_PX = (320, 320)


def bench(
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the sets; else $INSPECTION_DATA, else ../shared/data."),
    ] = None,
    sets: Annotated[str, typer.Option(help="Which sets, with commas; else all that are there.")] = "",
    protocols: Annotated[
        str, typer.Option(help="What a fit may see: normals-only, supervised.")
    ] = "normals-only,supervised",
    families: Annotated[
        str,
        typer.Option(
            help="auto, thorough, or families joined by +, with commas; else auto and each fast one."
        ),
    ] = "",
    backbones: Annotated[str, typer.Option(help="default, random, or ONNX files, with commas.")] = "default",
    seeds: Annotated[str, typer.Option(help="Of fits, folds and synthetic lines: 0-4, or 0,2.")] = "0-4",
    max_false_reject: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected (0.001-0.5).")
    ] = 0.02,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Figures as JSON, written as they come, gone on with; else in reports/.",
        ),
    ] = None,
    is_fresh: Annotated[bool, typer.Option("--fresh", help="Do again what FILE holds already.")] = False,
    is_promise: Annotated[
        bool, typer.Option("--promise", help="Instead: false rejects of fresh parts of the synthetic line.")
    ] = False,
) -> None:
    """Measure detector families and backbones on sets of real photos.

    Every fit runs in a process of its own. A run that was interrupted goes on where it stopped. No test
    photo chooses anything.

    Example: `loupe bench --sets cookies,screws --families auto --seeds 0-2`
    """
    wanted = numbers(seeds)
    check_promise(max_false_reject)
    out = out or Path("reports", "promise.json" if is_promise else "bench.json")
    check_report(out)
    if is_fresh:
        out.unlink(missing_ok=True)
    if is_promise:
        _promise(wanted, out)
        return
    # Seconds of libraries that `loupe bench --help` does not need.
    from services.trainer.bench.protocols import protocols_of
    from services.trainer.bench.run import USUAL_FAMILIES, Plan, run
    from services.trainer.bench.sets import read_sets
    from services.trainer.bench.settings import BenchSettings
    from services.trainer.bench.table import markdown
    from services.trainer.bench.trial import check_families

    check_families(names(families))
    folder = data or BenchSettings().inspection_data
    plan = Plan(
        sets=read_sets(folder, names(sets)),
        protocols=protocols_of(names(protocols)),
        families={one: names(families) or usual for one, usual in USUAL_FAMILIES.items()},
        backbones=tuple("" if one == "default" else one for one in names(backbones)),
        seeds=wanted,
        max_false_reject_ratio=max_false_reject,
    )
    document = run(plan, folder, out, command=_command(), tell=_tell)
    _show(document["trials"])
    _tell_files(out, markdown(document))


def names(text: str) -> tuple[str, ...]:
    """Return the words between commas.

    >>> names("auto, memory+aligned,")
    ('auto', 'memory+aligned')
    """
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers and ranges of them, both ends included.

    >>> numbers("0-2,7")
    (0, 1, 2, 7)

    Raises:
        BadRequest: it is none.
    """
    found: list[int] = []
    for word in names(text):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", word)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise BadRequest(f"{word!r} is no seed; write them as 0-4, or 0,2.", seeds=text)
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not found:
        raise BadRequest("Give at least one seed: --seeds 0-4.", seeds=text)
    return tuple(dict.fromkeys(found))


def duration(seconds: float) -> str:
    """Return seconds as people say them.

    >>> duration(42), duration(272), duration(7300)
    ('42 s', '5 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _command() -> str:
    return shlex.join(["loupe", *sys.argv[1:]])


def _tell(step: Step) -> None:
    from services.trainer.bench.table import ratio

    record = step.record
    what = f"{record['protocol']}, {record['set_name']}, {record['families']}, seed {record['seed']}"
    if "reason" in record:
        came_to = escape(record["reason"])
    else:
        metrics = record["metrics"]
        told = {"image AUROC": "image_auroc", "AUPRO": "aupro", "pixel AUROC": "pixel_auroc"}
        came_to = ", ".join(f"{name} {ratio(metrics[key])}" for name, key in told.items() if key in metrics)
    left = f"; {duration(step.left_s)} left" if step.done < step.total else ""
    progress.print(f"[dim]{step.done}/{step.total}[/] {what}: {came_to} [dim]{record['took_s']} s{left}[/]")


def _show(records: list[dict[str, Any]]) -> None:
    """Print a table per protocol for people."""
    from services.trainer.bench.table import columns_for, reasons, sections

    for title, rows in sections(records):
        console.print(f"[bold]{title}[/]")
        measured: list[Row] = [row for row in rows if row.records]
        if measured:
            shown = columns_for(measured)
            columns = [
                Column(one.name, is_right=at > 0, room=Room.ALWAYS if one.is_first else Room.BELOW)
                for at, one in enumerate(shown)
            ]
            print_list(console, columns, [[one.cell(row) for one in shown] for row in measured])
        for sentence in reasons(rows):
            console.print(f"[yellow]Note:[/] {escape(sentence)}")
        console.print()


def _tell_files(out: Path, text: str) -> None:
    """Write the Markdown beside the JSON, print it, and say where both are."""
    beside = out.with_suffix(".md")
    beside.write_text(text)
    typer.echo(text)
    console.print(f"Figures: {escape(str(out))}; as Markdown: {escape(str(beside))}")


def _promise(seeds: tuple[int, ...], out: Path) -> None:
    """Measure the promise on one synthetic line per seed, go on with what `out` holds, and print it."""
    from services.ingest.synthetic import SyntheticLine
    from services.trainer.bench.promise import PromisePlan, measure
    from services.trainer.bench.promise_table import COLUMNS, document_of, markdown, read, rows_of
    from services.trainer.bench.run import write_whole

    kept = list(read(out))
    known = {one.key for one in kept}
    for seed in seeds:
        good = SyntheticLine(seed, _LINE_PX, anomaly_share=0.0)
        bad = SyntheticLine(seed, _LINE_PX, anomaly_share=1.0)
        name = f"{good.kind.name} {seed}"
        for one in measure(name, seed, good.jpeg, bad.jpeg, PromisePlan(), known=known):
            kept.append(one)
            progress.print(
                f"{one.line}, {one.fit_photos} photos, {one.promise:.1%} promised: "
                f"{one.false_reject_ratio:.2%} of {one.fresh} rejected, recall {one.recall_ratio:.1%}"
            )
            write_whole(out, document_of(kept, _command()))
    rows = rows_of([one for one in kept if one.seed in seeds])
    columns = [Column(title, is_right=at > 0) for at, (title, _) in enumerate(COLUMNS)]
    print_list(console, columns, [[cell(row) for _, cell in COLUMNS] for row in rows])
    _tell_files(out, markdown(rows, command=_command()))
