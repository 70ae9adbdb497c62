"""`make bench-peers`: Loupe beside anomalib, on the same photos, splits and backbone weights, in one run.

The peer lives in an environment of its own (`bench_peers.lock`, `bench_peers_child.py`). It is asked three
times for each model: to learn from all training photos, which its quality and its cost are taken from, and
for a threshold without anomalies in the two ways that it offers, from a fifth of the training photos held
out, and from synthetic anomalies drawn on them. What it says of the test photos is measured by the same code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from services.domain.label import Verdict
from services.trainer.backbones.efficientnet import WEIGHTS_SHA256, load_backbone
from services.trainer.bench.machine import this_machine
from services.trainer.bench.protocols import Protocol
from services.trainer.bench.sets import BenchSet, Photos, read_sets
from services.trainer.bench.settings import BenchSettings
from services.trainer.bench.table import ratio
from services.trainer.bench.trial import AUTO, Trial, run_trial
from services.trainer.evaluating import MAP_PX, Judged, Photo, read_photo
from services.trainer.evaluation.outcome import Outcome
from services.trainer.features import FeatureExtractor
from services.vision.decode import decode

CHILD = Path(__file__).with_name("bench_peers_child.py")
SETS = "cookies,PA_BRG01_RL,screws,ball-screw"
THREADS = 2
_TIMEOUT_S = 1800.0
# Weights are the same where features of one photo agree this well, relative to their largest.
_SAME_FEATURES = 1e-3
console = Console(highlight=False)


@dataclass(frozen=True)
class Model:
    """One model of the peer.

    Attributes:
        coreset_ratio: share of all patches that PatchCore keeps (0-1).
    """

    title: str
    name: str
    coreset_ratio: float = 0.0


MODELS = {
    "patchcore-1": Model("PatchCore 1 %", "patchcore", 0.01),
    "patchcore-10": Model("PatchCore 10 %", "patchcore", 0.1),
    "padim": Model("PaDiM", "padim"),
}


@dataclass(frozen=True)
class Contestant:
    """One column.

    Attributes:
        figures: by name; what is not known is absent.
        note: what went wrong.
    """

    title: str
    figures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 unless no column of the peer could be filled."""
    asked = _arguments(arguments)
    sets = read_sets(asked.data or BenchSettings().inspection_data, asked.sets.split(","))
    lines = [
        f"{datetime.now(UTC).date().isoformat()}, {this_machine()}; anomalib {_version(asked.python)}, "
        f"the same backbone weights, splits and metrics, 224 px, {THREADS} threads, seed {asked.seed}. "
        f"`make bench-peers`.",
    ]
    is_any = False
    for one in sets:
        console.print(f"[dim]load average {psutil.getloadavg()[0]:.1f}[/] {one.name}")
        columns = [loupe(one, asked)]
        for name in asked.models.split(","):
            columns.append(peer(MODELS[name], one, asked))
            console.print(f"[dim]{columns[-1].title}[/] {columns[-1].note or 'done'}")
        is_any = is_any or any(column.figures for column in columns[1:])
        lines += ["", *table(one, columns)]
    text = "\n".join(lines) + "\n"
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text)
    sys.stdout.write(text)
    return 0 if is_any else 1


def loupe(one: BenchSet, asked: argparse.Namespace) -> Contestant:
    """Return Loupe's column: `loupe bench` of auto, normals only."""
    data = asked.data or BenchSettings().inspection_data
    record = run_trial(Trial(one.name, Protocol.NORMALS_ONLY, AUTO, "", asked.seed), one, data)
    if "reason" in record:
        return Contestant("Loupe auto", note=record["reason"])
    cost = record["cost"]
    figures = {
        **record["metrics"],
        "fit_s": cost["fit_s"],
        "peak_mib": cost["peak_rss_bytes"] / 2**20,
        "ort_ms": cost["ms"],
        "serving_ms": cost["serving_ms"],
        "file_mib": cost["file_bytes"] / 2**20,
    }
    return Contestant(f"Loupe auto ({', '.join(record['chosen'])})", figures)


def peer(model: Model, one: BenchSet, asked: argparse.Namespace) -> Contestant:
    """Return a column of the peer."""
    folder = Path(tempfile.mkdtemp(prefix="loupe-peers-"))
    try:
        test = _write_photos(one, folder)
        result = _run_child(model, folder, asked, threshold="none")
        _check_weights(folder)
        figures = {
            **_figures(_judged(test, folder), ("image_auroc", "aupro", "pixel_auroc")),
            "import_s": result["import_s"],
            "fit_s": result["fit_s"],
            "peak_mib": result["peak_rss_bytes"] / 2**20,
            "eager_ms": result["eager_ms"],
        }
        if "ort_ms" in result:
            figures |= {"ort_ms": result["ort_ms"], "file_mib": result["file_bytes"] / 2**20}
        for mode, prefix in (("from_train", ""), ("synthetic", "synthetic_")):
            _run_child(model, folder, asked, threshold=mode)
            shares = _figures(_judged(test, folder), ("false_reject_ratio", "recall_ratio"))
            figures |= {prefix + name: value for name, value in shares.items()}
    except PeerFailed as error:
        return Contestant(model.title, note=str(error))
    finally:
        shutil.rmtree(folder)
    return Contestant(model.title, figures, str(result.get("export_error", "")))


class PeerFailed(Exception):
    """The peer's process ended without a result; the last line of what it wrote."""


@dataclass(frozen=True)
class Line:
    """A row: a figure and how it is written."""

    title: str
    name: str
    write: Callable[[float], str]


ROWS: tuple[Line, ...] = (
    Line("image AUROC", "image_auroc", ratio),
    Line("AUPRO", "aupro", ratio),
    Line("pixel AUROC", "pixel_auroc", ratio),
    Line("false rejects, threshold from normals", "false_reject_ratio", ratio),
    Line("recall, the same threshold", "recall_ratio", ratio),
    Line("false rejects, from synthetic anomalies", "synthetic_false_reject_ratio", ratio),
    Line("recall, the same threshold", "synthetic_recall_ratio", ratio),
    Line("import s", "import_s", "{:.1f}".format),
    Line("fit s", "fit_s", "{:.1f}".format),
    Line("peak MiB of the fit", "peak_mib", "{:.0f}".format),
    Line("ms eager", "eager_ms", "{:.1f}".format),
    Line("ms ONNX Runtime, fp32", "ort_ms", "{:.1f}".format),
    Line("ms as served", "serving_ms", "{:.1f}".format),
    Line("file MiB", "file_mib", "{:.1f}".format),
)


def table(one: BenchSet, columns: Sequence[Contestant]) -> list[str]:
    """Return the Markdown lines of a set: a row per figure, a column per contestant."""
    lines = [
        f"| {one.name}, {one.counts} | " + " | ".join(column.title for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in ROWS:
        if any(row.name in column.figures for column in columns):
            cells = [
                row.write(column.figures[row.name]) if row.name in column.figures else "–"
                for column in columns
            ]
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    notes = [f"{column.title}: {column.note}" for column in columns if column.note]
    return [*lines, *(["", *notes] if notes else [])]


def _write_photos(one: BenchSet, folder: Path) -> Photos:
    """Write the photos of a set as the peer reads them, numbered; return those that test, in that order."""
    test = (*one.normals, *one.anomalies)
    for name, images in (("train", one.train), ("test", test)):
        (folder / name).mkdir()
        for number, image in enumerate(images):
            (folder / name / f"{number:05d}{Path(image.name).suffix}").write_bytes(image.read())
    np.save(folder / "probe.npy", decode(one.train[0].read()).pixels)
    return test


def _run_child(model: Model, folder: Path, asked: argparse.Namespace, *, threshold: str) -> dict[str, Any]:
    """Let the peer fit and judge; what it writes replaces what it wrote before.

    Raises:
        PeerFailed: it ended without a result.
    """
    job = {
        "folder": str(folder),
        "model": model.name,
        "coreset_ratio": model.coreset_ratio,
        "threshold": threshold,
        "is_timed": threshold == "none",
        "seed": asked.seed,
        "threads": THREADS,
        "max_bytes": int(asked.max_gib * 2**30),
        "weights_sha256": WEIGHTS_SHA256,
    }
    path, result = folder / "job.json", folder / "result.json"
    path.write_text(json.dumps(job))
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [str(asked.python), str(CHILD), str(path)],
        capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
    )  # fmt: skip
    if not result.is_file():
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise PeerFailed(f"{threshold}: {last[-200:]}")
    answer: dict[str, Any] = json.loads(result.read_text())
    return answer


def _judged(test: Photos, folder: Path) -> Judged:
    """Return what the peer said of the photos that test."""
    scores, labels = np.load(folder / "scores.npy"), np.load(folder / "labels.npy")
    photos = [read_photo(image, (MAP_PX, MAP_PX)) for image in test]
    masks = np.zeros((len(test), MAP_PX, MAP_PX), np.bool_)
    for at, photo in enumerate(photos):
        for mask in photo.masks.values() if isinstance(photo, Photo) else ():
            masks[at] |= mask
    outcomes = tuple(
        Outcome(image.name, image.label, score, Verdict.ANOMALY if label else Verdict.NORMAL)
        for image, score, label in zip(test, scores.tolist(), labels.tolist(), strict=True)
    )
    return Judged(outcomes, np.load(folder / "maps.npy"), masks)


def _figures(judged: Judged, names: Sequence[str]) -> dict[str, float]:
    metrics = judged.evaluation().metrics
    return {name: metrics[name] for name in names if name in metrics}


def _check_weights(folder: Path) -> None:
    """Compare the peer's features of one photo with Loupe's: the same weights, and read the same way.

    Raises:
        PeerFailed: they differ.
    """
    ours = FeatureExtractor(load_backbone()).extract(np.load(folder / "probe.npy")[None])
    by_grid = {value.shape[-1]: value for name, value in ours.items() if name.startswith("f")}
    for file in sorted(folder.glob("features*.npy")):
        theirs = np.load(file)
        expected = by_grid[theirs.shape[-1]]
        gap = float(np.abs(theirs - expected).max() / np.abs(expected).max())
        if not gap <= _SAME_FEATURES:
            raise PeerFailed(f"its features differ from Loupe's by {gap:.2g} of the largest")


def _version(python: Path) -> str:
    command = "import importlib.metadata as m; print(m.version('anomalib'))"
    done = subprocess.run([str(python), "-c", command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_peers", description=__doc__)
    parser.add_argument("--python", type=Path, default=Path("build/peers/bin/python"), help="of the peer")
    parser.add_argument("--data", type=Path, default=None, help="folder of the sets")
    parser.add_argument("--sets", default=SETS, help="which sets, with commas")
    parser.add_argument("--models", default="patchcore-1,padim", help=", ".join(MODELS))
    parser.add_argument("--seed", type=int, default=0, help="of fits")
    parser.add_argument("--max-gib", type=float, default=8.0, help="memory that the peer may take")
    parser.add_argument("--out", type=Path, default=Path("reports/bench_peers.md"), help="Markdown")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
