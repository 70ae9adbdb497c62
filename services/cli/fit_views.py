"""What `loupe fit` says: what tiles will cost, and what became of a fit. Lays out, computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from services.cli.layout import Cell, Column, print_facts, print_list

if TYPE_CHECKING:
    from services.domain.model_version import CandidateReport, Manifest
    from services.trainer.commands import FitOutcome, Forecast

# Metrics that are told, best known first; the card has all.
_METRICS = {
    "image_auroc": "image AUROC",
    "recall_ratio": "recall",
    "precision_ratio": "precision",
    "f1": "F1",
    "false_reject_ratio": "false rejects",
    "aupro": "AUPRO",
    "pixel_auroc": "pixel AUROC",
}
_IOU = "mean_iou."


def print_forecast(console: Console, known: Forecast, tiles: int) -> None:
    """Print what tiles cost before anything is learnt."""
    count = tiles * tiles
    console.print(
        f"{count} tiles, together {known.input_px} pixels wide: their features alone take "
        f"{known.backbone_ms:.0f} ms an image on this machine, {count} x {known.backbone_ms / count:.1f}."
    )


def print_outcome(console: Console, outcome: FitOutcome, took_s: float, *, is_up: bool) -> None:
    """Print what was chosen and why, what it can do, what to be careful about, and what is next."""
    manifest = outcome.manifest
    console.print(Text.assemble(("Fitted ", "green"), manifest.project, " ", manifest.version))
    for sentence in _why(manifest):
        console.print(Text(sentence))
    console.print()
    print_facts(console, dict(_facts(manifest, took_s)))
    rows = list(_metric_rows(manifest))
    if rows:
        console.print()
        console.print(outcome.measured_on)
        columns = [Column("measured"), Column("value", is_right=True), Column("95 % interval")]
        print_list(console, columns, rows)
    console.print()
    told = "" if outcome.decision.is_promoted else "Not promoted: "
    for reason in outcome.decision.reasons:
        console.print(Text.assemble((told, "yellow"), reason))
    for warning in manifest.warnings:
        console.print(Text.assemble(("Note: ", "yellow"), warning))
    if not is_up:
        console.print("The stack does not run; `loupe up` will host this version.")
    console.print(f"Next: loupe inspect IMAGE --project {manifest.project}", soft_wrap=True)
    console.print(f"Card: {outcome.card}", soft_wrap=True)


def _why(manifest: Manifest) -> Iterator[str]:
    chosen: CandidateReport | None = next((one for one in manifest.candidates if one.is_chosen), None)
    reason = f": {chosen.reason}" if chosen and chosen.reason else "."
    yield f"Chosen: {manifest.family}{reason}"


def _facts(manifest: Manifest, took_s: float) -> Iterator[tuple[str, Cell]]:
    metrics, promise = manifest.metrics, manifest.calibration.max_false_reject_ratio
    yield "photos", f"{manifest.train_images} learnt from"
    if "image_auroc" not in metrics:
        yield "test", "none: there is no anomalous photo that could be used"
    yield (
        "threshold",
        f"{manifest.calibration.threshold:.3f}, to reject at most {100 * promise:g} % of good parts",
    )
    if manifest.types:
        yield "types", ", ".join(one.name for one in manifest.types)
    if manifest.variants:
        speeds = ", ".join(f"{one.name} {one.ms:.1f} ms" for one in manifest.variants)
        yield "speed", f"{speeds} an image; {manifest.serving} serves"
    elif "graph_ms" in metrics:
        yield "speed", f"{metrics['graph_ms']:.1f} ms an image"
    yield "backbone", f"{manifest.backbone.name} ({manifest.backbone.licence})"
    if manifest.tiles > 1:
        yield "tiles", f"{manifest.tiles} x {manifest.tiles}"
    yield "size", f"{metrics['file_bytes'] / 1e6:.1f} MB"
    yield "time", f"{took_s:.1f} s"


def _metric_rows(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    named = {
        name: f"mean IoU of {name.removeprefix(_IOU)}" for name in manifest.metrics if name.startswith(_IOU)
    }
    for name, told in (_METRICS | named).items():
        if name in manifest.metrics:
            ends = manifest.intervals.get(name)
            low, high = (f"{end:.3f}" for end in ends or (0, 0))
            # One without width says nothing of other photos.
            yield told, f"{manifest.metrics[name]:.3f}", f"{low} - {high}" if low != high else ""
