"""The model card: one self-contained HTML page that says what a version is worth (arrow 6).

What it was made of, why this family, metrics with intervals, curves, hits and mistakes, speed, limits. No
script, nothing loaded from elsewhere. Measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup
from numpy.typing import NDArray

from services.domain.model_version import Manifest
from services.trainer.card.pictures import Shown, walls_of
from services.trainer.card.plots import Group, Line, curves, histogram, over_scores, score_range
from services.trainer.dataset import SkippedImage
from services.trainer.evaluation.image import Points
from services.trainer.evaluation.report import Evaluation

_NORMAL, _BAD, _MADE = "var(--normal)", "var(--bad)", "var(--made)"
# By metric: low and high.
Intervals = Mapping[str, tuple[float, float]]
_NO_SCORES = np.zeros(0, np.float32)
_CURVE_POINTS = 160
# Metric -> its words, and how its value is written. The first six stand at the top, where they are known.
_METRICS = {
    "image_auroc": ("image AUROC", "{:.3f}"),
    "recall_ratio": ("anomalies found (recall)", "{:.1%}"),
    "false_reject_ratio": ("good parts rejected", "{:.1%}"),
    "precision_ratio": ("alarms that are right (precision)", "{:.1%}"),
    "f1": ("F1", "{:.3f}"),
    "aupro": ("places found (AUPRO)", "{:.3f}"),
    "pixel_auroc": ("pixel AUROC", "{:.3f}"),
    "average_precision": ("average precision", "{:.3f}"),
    "accuracy_ratio": ("verdicts that are right", "{:.1%}"),
    "cross_fitted_false_reject_ratio": ("training photos above the threshold, cross-fitted", "{:.1%}"),
    "fit_s": ("time to fit", "{:.1f} s"),
    "graph_ms": ("one image, fp32", "{:.1f} ms"),
    "int8_ms": ("one image, int8", "{:.1f} ms"),
    "int8_time_ratio": ("time of int8, of that of fp32", "{:.1%}"),
    "int8_agreement_ratio": ("same verdicts in int8", "{:.1%}"),
    "int8_auroc_loss": ("AUROC lost in int8", "{:.4f}"),
    "file_bytes": ("size of the graph in bytes", "{:,.0f}"),
}
_AT_THE_TOP = 6
_IOU = "mean_iou."


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        manifest: of the version; its hashes are not needed yet.
        evaluation: what was measured; None where nothing was labelled but good parts.
        measured_on: a sentence that says on which photos.
        normal_scores: (n,) cross-fitted scores of training photos.
        anomalous_scores: (a,) scores of labelled anomalies.
        made_up_scores: (s,) scores of training photos with made-up defects.
        shown: photos to choose the pictures from.
        skipped: photos that were left out, and why.
    """

    manifest: Manifest
    evaluation: Evaluation | None
    measured_on: str
    normal_scores: NDArray[np.float32]
    anomalous_scores: NDArray[np.float32] = field(default_factory=lambda: _NO_SCORES)
    made_up_scores: NDArray[np.float32] = field(default_factory=lambda: _NO_SCORES)
    shown: Sequence[Shown] = ()
    skipped: Sequence[SkippedImage] = ()


@dataclass(frozen=True, slots=True)
class _Big:
    """A number at the top."""

    name: str
    value: str
    interval: str


def render_card(facts: CardFacts) -> str:
    """Return the page."""
    m, evaluation = facts.manifest, facts.evaluation
    groups = _groups(facts)
    low, high = score_range(groups, m.calibration.threshold)
    metrics = {**m.metrics, **(evaluation.metrics if evaluation else {})}
    intervals = {**m.intervals, **(evaluation.intervals if evaluation else {})}
    walls = walls_of(facts.shown, m.calibration)
    return _template().render(
        m=m,
        measured_on=facts.measured_on,
        big=[
            _Big(_words_of(name), _form_of(name).format(metrics[name]), _interval(name, intervals))
            for name in list(_METRICS)[:_AT_THE_TOP]
            if name in metrics
        ],
        histogram=Markup(_histogram(facts, groups, low, high)),  # noqa: S704 - our own SVG
        groups=groups,
        threshold_plot=Markup(_threshold_plot(facts, low, high)),  # noqa: S704
        roc=Markup(_roc(evaluation)),  # noqa: S704
        precision_recall=Markup(_precision_recall(evaluation)),  # noqa: S704
        walls=walls,
        has_masks=any(one.mask is not None for one in facts.shown),
        types=evaluation.types if evaluation else (),
        choice=next((one.reason for one in m.candidates if one.is_chosen), ""),
        has_learnt_anomalies=len(facts.anomalous_scores) > 0,
        rows=_rows(m, metrics, intervals),
        limits=_limits(facts),
        skipped=facts.skipped,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("services.trainer.card", ""),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3f}"
    return environment.get_template("card.html.j2")


def _groups(facts: CardFacts) -> list[Group]:
    groups = [
        Group("good parts, cross-fitted", _NORMAL, facts.normal_scores),
        Group("made-up defects", _MADE, facts.made_up_scores),
        Group("labelled anomalies", _BAD, facts.anomalous_scores),
    ]
    return [groups[0], *(one for one in groups[1:] if len(one.scores))]


def _histogram(facts: CardFacts, groups: Sequence[Group], low: float, high: float) -> str:
    calibration = facts.manifest.calibration
    band = (calibration.uncertain_low, calibration.uncertain_high)
    # Good parts are drawn last, over the others.
    return histogram(
        "Histogram of scores",
        [*groups[1:], groups[0]],
        threshold=calibration.threshold,
        band=band,
        low=low,
        high=high,
    )


def _threshold_plot(facts: CardFacts, low: float, high: float) -> str:
    """Return found and rejected over the threshold; empty where there is nothing to find."""
    bad = facts.anomalous_scores if len(facts.anomalous_scores) else facts.made_up_scores
    if not len(bad):
        return ""
    at = np.linspace(low, high, _CURVE_POINTS)
    lines = [
        Line("found", _BAD, at, np.mean(bad[None] >= at[:, None], axis=1)),
        Line("rejected", _NORMAL, at, np.mean(facts.normal_scores[None] >= at[:, None], axis=1)),
    ]
    threshold = facts.manifest.calibration.threshold
    return over_scores("Found and rejected by threshold", lines, threshold=threshold, low=low, high=high)


def _roc(evaluation: Evaluation | None) -> str:
    if evaluation is None or not evaluation.roc:
        return ""
    line = _line("ROC", evaluation.roc)
    diagonal = Line("chance", "#8888", [0, 1], [0, 1], is_step=False)
    mark = (evaluation.metrics["false_reject_ratio"], evaluation.metrics["recall_ratio"])
    return curves("ROC curve", "good parts rejected", "anomalies found", [diagonal, line], mark=mark)


def _precision_recall(evaluation: Evaluation | None) -> str:
    if evaluation is None or not evaluation.precision_recall:
        return ""
    line = _line("PR", evaluation.precision_recall)
    metrics = evaluation.metrics
    mark = (metrics["recall_ratio"], metrics["precision_ratio"]) if "precision_ratio" in metrics else None
    return curves("Precision-recall curve", "anomalies found", "alarms that are right", [line], mark=mark)


def _line(name: str, points: Points) -> Line:
    return Line(name, _BAD, [across for across, _ in points], [up for _, up in points], is_step=False)


def _words_of(metric: str) -> str:
    if metric.startswith(_IOU):
        return f"mean IoU of {metric.removeprefix(_IOU)}"
    return _METRICS[metric][0] if metric in _METRICS else metric.replace("_", " ")


def _form_of(metric: str) -> str:
    return _METRICS[metric][1] if metric in _METRICS else "{:.3f}"


def _interval(name: str, intervals: Intervals) -> str:
    """Return a metric's interval; nothing of one without width, which says nothing of other photos."""
    if name not in intervals:
        return ""
    low, high = (_form_of(name).format(end) for end in intervals[name])
    return f"95 %: {low} to {high}" if low != high else ""


def _rows(m: Manifest, metrics: Mapping[str, float], intervals: Intervals) -> list[tuple[str, str, str]]:
    calibration = m.calibration
    facts = [
        ("promise: good parts rejected, at most", f"{calibration.max_false_reject_ratio:.1%}"),
        ("threshold (score)", f"{calibration.threshold:.3f}"),
        ("uncertain between", f"{calibration.uncertain_low:.3f} and {calibration.uncertain_high:.3f}"),
        ("different objects among the good photos", str(calibration.normal_count)),
    ]
    rows = [(name, value, "") for name, value in facts]
    for name, value in sorted(metrics.items(), key=lambda one: _place_of(one[0])):
        rows.append((_words_of(name), _form_of(name).format(value), _interval(name, intervals)))
    identity = [
        (
            "input",
            f"{m.inputs[0].shape[2]} x {m.inputs[0].shape[1]} px"
            + (f", {m.tiles} x {m.tiles} tiles" if m.tiles > 1 else ""),
        ),
        ("backbone", f"{m.backbone.name} ({m.backbone.licence})"),
        ("backbone's SHA-256", m.backbone.sha256),
        ("data digest", m.data_digest),
        ("seed", str(m.seed)),
    ]
    return [*rows, *((name, value, "") for name, value in identity)]


def _place_of(metric: str) -> tuple[int, str]:
    names = list(_METRICS)
    return (names.index(metric) if metric in names else len(names), metric)


def _limits(facts: CardFacts) -> list[str]:
    """Return plain sentences about what this version cannot be trusted with."""
    m = facts.manifest
    side = m.inputs[0].shape[1]
    limits = [
        f"It sees the picture at {side} x {side} px. What is smaller than about 4 px there is easily missed; "
        "more tiles (--tiles) see smaller things and take longer.",
        "It knows the camera, light and position of its training photos. Where these change, scores rise "
        "without defects; `loupe drift` tells.",
    ]
    if facts.evaluation is None:
        limits.append("It was never tried on a real defect: none was labelled.")
    elif facts.evaluation.counts.true_positives + facts.evaluation.counts.false_negatives < 20:
        limits.append("It was tried on fewer than 20 labelled anomalies, so what it finds is known roughly.")
    return limits
