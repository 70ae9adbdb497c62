"""The model card: one self-contained HTML page that says what a version is worth (arrow 6).

Numbers, warnings, where normal scores lie against the threshold, and what the model sees in its
golden photos. No script, nothing loaded from elsewhere.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.domain.model_version import Calibration, Manifest
from services.trainer.dataset import SkippedImage
from services.vision.golden import Golden
from services.vision.regions import smooth_map

_WIDTH, _HEIGHT, _BINS = 640, 160, 40
_MAX_SKIPPED_SHOWN = 20
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--normal:#2a9d8f;--bad:#d1495b}
body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.3rem 0}
.sub{opacity:.7}table{border-collapse:collapse;width:100%}td{padding:.25rem .5rem .25rem 0;
border-bottom:1px solid var(--line)}td:last-child{text-align:right;font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}.warn{border-left:4px solid #e9a03b;padding:.2rem .8rem;margin:.5rem 0}
figure{display:inline-block;margin:0 .6rem .6rem 0}figcaption{font-size:.85rem;opacity:.8}
img{border-radius:6px;display:block}svg{width:100%;height:auto}svg text{font-size:12px;fill:currentColor}
"""

# Metric -> what it says in words, and how its value is written.
_METRICS = {
    "cross_fitted_false_reject_ratio": (
        "Training photos above the threshold, each judged by a model that does not know it (pessimistic)",
        "{:.1%}",
    ),
    "fit_s": ("Time to fit", "{:.1f} s"),
    "image_auroc": ("Image AUROC: labelled anomalies against left-out training photos", "{:.3f}"),
    "recall_ratio": ("Labelled anomalies found", "{:.1%}"),
}


def render_card(
    manifest: Manifest,
    *,
    normal_scores: Sequence[float] | NDArray[np.float32],
    anomalous_scores: Sequence[float] | NDArray[np.float32],
    golden: Golden,
    golden_names: Sequence[str],
    skipped: Sequence[SkippedImage],
) -> str:
    """Return the page.

    Args:
        manifest: of the version; its hashes are not needed yet.
        normal_scores: cross-fitted scores of training photos.
        anomalous_scores: scores of labelled anomalies, if there were any.
        golden: photos with scores and maps.
        golden_names: what they are called.
        skipped: photos that were left out, and why.
    """
    title = f"{manifest.project} · version {manifest.version}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{escape(manifest.family)} detector, fitted {manifest.created_at:%Y-%m-%d %H:%M} UTC '
        f"from {manifest.train_images} photos of good parts</p>",
        *(f'<p class="warn">{escape(one)}</p>' for one in manifest.warnings),
        "<h2>Scores</h2>",
        _histogram(normal_scores, anomalous_scores, manifest.calibration),
        "<h2>What it sees</h2>",
        *_figures(golden, golden_names, manifest.calibration),
        "<h2>Numbers</h2>",
        _table(_rows(manifest)),
        *_skipped(skipped),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(sections)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _rows(manifest: Manifest) -> list[tuple[str, str]]:
    calibration = manifest.calibration
    return [
        ("Promise: good parts rejected, at most", f"{calibration.max_false_reject_ratio:.1%}"),
        ("Threshold (score)", f"{calibration.threshold:.3f}"),
        ("Uncertain between", f"{calibration.uncertain_low:.3f} and {calibration.uncertain_high:.3f}"),
        ("Different objects among the photos", str(calibration.normal_count)),
        *(_metric_row(name, value) for name, value in sorted(manifest.metrics.items())),
        ("Seed", str(manifest.seed)),
        ("Backbone", f"{manifest.backbone.name} ({manifest.backbone.licence})"),
        ("Data digest", manifest.data_digest),
    ]


def _metric_row(name: str, value: float) -> tuple[str, str]:
    """Return a metric in words; one that has none yet keeps its name."""
    words, form = _METRICS.get(name, (name.replace("_", " "), "{:g}"))
    return words, form.format(value)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    lines = (f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{''.join(lines)}</table>"


def _histogram(
    normal: Sequence[float] | NDArray[np.float32],
    anomalous: Sequence[float] | NDArray[np.float32],
    calibration: Calibration,
) -> str:
    """Draw both groups' scores as bars, the threshold as a line; far anomalies share the last bar."""
    low = min(float(np.min(normal)), 0.0)
    # Anomalies may score 50 times the threshold; normal scores should still fill the picture.
    high = max(calibration.threshold * 3, float(np.max(normal)) * 1.1)
    edges = np.linspace(low, high, _BINS + 1)
    bars, step = [], _WIDTH / _BINS
    for scores, colour in ((anomalous, "var(--bad)"), (normal, "var(--normal)")):
        counts, _ = np.histogram(np.clip(scores, low, high), edges)
        tallest = max(int(counts.max()), 1)
        for index, count in ((at, number) for at, number in enumerate(counts.tolist()) if number):
            height = (_HEIGHT - 30) * count / tallest
            bars.append(
                f'<rect x="{index * step + 1:.1f}" y="{_HEIGHT - 20 - height:.1f}" width="{step - 2:.1f}" '
                f'height="{height:.1f}" fill="{colour}" opacity=".75"/>'
            )
    x = _WIDTH * (calibration.threshold - low) / (high - low)
    legend = f"normal, cross-fitted ({len(normal)})"
    legend += f" and anomalous ({len(anomalous)})" if len(anomalous) else ""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Histogram of scores">{"".join(bars)}'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT - 20}" stroke="currentColor" '
        f'stroke-dasharray="4 3"/><text x="{x + 5:.1f}" y="12">threshold</text>'
        f'<text x="0" y="{_HEIGHT - 4}">{low:.1f}</text><text x="{_WIDTH}" y="{_HEIGHT - 4}" '
        f'text-anchor="end">{high:.1f} and more</text></svg><p class="sub">{escape(legend)}; '
        "each group drawn to its own height</p>"
    )


def _figures(golden: Golden, names: Sequence[str], calibration: Calibration) -> list[str]:
    """Show each golden photo with what lies above half the map's threshold tinted red."""
    figures = []
    for pixels, one, name in zip(golden.inputs, golden.outputs, names, strict=True):
        picture = _overlay(pixels, one.anomaly_map, calibration)
        verdict = "anomalous" if one.score >= calibration.threshold else "normal"
        figures.append(
            f'<figure><img width="150" alt="" src="data:image/jpeg;base64,{picture}">'
            f"<figcaption>{escape(name)}<br>{one.score:.2f}, {verdict}</figcaption></figure>"
        )
    return figures


def _overlay(pixels: NDArray[np.uint8], anomaly_map: NDArray[np.float32], calibration: Calibration) -> str:
    """Return a base64 JPEG of the photo, redder the farther the map is above normal."""
    smooth = smooth_map(anomaly_map, calibration.map_sigma_px, len(pixels))
    half = max(calibration.map_threshold / 2, 1e-3)
    strength = np.clip((smooth - half) / half, 0, 1)[:, :, None] * 0.6
    small = np.asarray(Image.fromarray(pixels).resize(smooth.shape[::-1]), np.float32)
    tinted = small * (1 - strength) + np.array([230, 30, 50], np.float32) * strength
    buffer = BytesIO()
    Image.fromarray(tinted.astype(np.uint8)).resize((150, 150)).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _skipped(skipped: Sequence[SkippedImage]) -> list[str]:
    if not skipped:
        return []
    rows = [(one.name, one.reason) for one in skipped[:_MAX_SKIPPED_SHOWN]]
    more = len(skipped) - len(rows)
    return [
        f"<h2>Photos left out ({len(skipped)})</h2>",
        _table(rows),
        *([f"<p>and {more} more</p>"] if more else []),
    ]
