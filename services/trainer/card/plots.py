"""Small plots as inline SVG: histogram, curves (arrow 6). Nothing is computed here but places on the paper.

Written by hand because a card is one page without scripts, readable in the light and in the dark, and a
plotting library would take a second of every fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 36
_BINS = 48
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.

    Attributes:
        name: for the legend.
        colour: a CSS colour.
        across: (n,) numbers.
        up: (n,) numbers.
        is_step: drawn as steps, as empirical curves are.
    """

    name: str
    colour: str
    across: ArrayLike
    up: ArrayLike
    is_step: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """A group of scores in a histogram."""

    name: str
    colour: str
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Paper:
    """Places of numbers on a drawing."""

    width: int
    height: int
    low: float
    high: float

    def x(self, value: float) -> float:
        """Return the place across of a value; beyond the paper it is its edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, ratio: float) -> float:
        """Return the place down of a share (0-1)."""
        return self.height - _BOTTOM - ratio * (self.height - _TOP - _BOTTOM)


def curves(
    title: str, across: str, up: str, lines: Sequence[Line], *, mark: tuple[float, float] | None = None
) -> str:
    """Return curves of shares (0-1) over shares; `mark` is where the threshold stands."""
    paper = _Paper(300, 260, 0.0, 1.0)
    parts = [_axes(paper, across, up), *(_ticks_across(paper, [f"{tick:g}" for tick in _TICKS]))]
    parts += [_path(paper, line) for line in lines]
    if mark is not None:
        parts.append(
            f'<circle cx="{paper.x(mark[0]):.1f}" cy="{paper.y(mark[1]):.1f}" r="4.5" fill="none" '
            'stroke="currentColor" stroke-width="1.5"/>'
        )
    return _drawing(paper, title, parts)


def over_scores(title: str, lines: Sequence[Line], *, threshold: float, low: float, high: float) -> str:
    """Return curves of shares (0-1) over scores, with the threshold."""
    paper = _Paper(640, 220, low, high)
    parts = [_axes(paper, "threshold (score)", "share"), *_score_ticks(paper)]
    parts += [_path(paper, line) for line in lines]
    parts.append(_threshold(paper, threshold))
    return _drawing(paper, title, parts)


def histogram(
    title: str,
    groups: Sequence[Group],
    *,
    threshold: float,
    band: tuple[float, float],
    low: float,
    high: float,
) -> str:
    """Return bars per group, each to its own height, with threshold and uncertainty band.

    Scores beyond `low` and `high` share the outermost bars.
    """
    paper = _Paper(640, 220, low, high)
    left, right = paper.x(band[0]), paper.x(band[1])
    parts = [
        f'<rect x="{left:.1f}" y="{_TOP}" width="{max(right - left, 0):.1f}" '
        f'height="{paper.height - _TOP - _BOTTOM}" fill="currentColor" opacity=".07"/>',
        _axes(paper, "score", ""),
        *_score_ticks(paper),
    ]
    edges = np.linspace(low, high, _BINS + 1)
    for group in groups:
        counts, _ = np.histogram(np.clip(group.scores, low, high), edges)
        tallest = max(int(counts.max()), 1)
        for index, count in enumerate(counts.tolist()):
            if count:
                begin, end = paper.x(float(edges[index])), paper.x(float(edges[index + 1]))
                top = paper.y(count / tallest)
                parts.append(
                    f'<rect x="{begin + 0.5:.1f}" y="{top:.1f}" width="{end - begin - 1:.1f}" '
                    f'height="{paper.y(0) - top:.1f}" fill="{group.colour}" opacity=".65"/>'
                )
    parts.append(_threshold(paper, threshold))
    return _drawing(paper, title, parts)


def score_range(groups: Sequence[Group], threshold: float) -> tuple[float, float]:
    """Return what part of the scores is drawn: all of the first group, and three thresholds of the others.

    Anomalies may score fifty times the threshold; normal scores should still fill the picture.
    """
    first = groups[0].scores
    low = min(float(np.min(first)), threshold, 0.0) if len(first) else min(threshold, 0.0)
    highest = float(np.max(first)) * 1.1 if len(first) else threshold
    return low, max(low + 3 * (threshold - low), highest, low + 1e-3)


def _path(paper: _Paper, line: Line) -> str:
    across, up = np.asarray(line.across, float).tolist(), np.asarray(line.up, float).tolist()
    points: list[str] = []
    for index, (a, u) in enumerate(zip(across, up, strict=True)):
        if line.is_step and index:
            points.append(f"{paper.x(a):.1f},{paper.y(up[index - 1]):.1f}")
        points.append(f"{paper.x(a):.1f},{paper.y(u):.1f}")
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{line.colour}" stroke-width="2"/>'


def _axes(paper: _Paper, across: str, up: str) -> str:
    bottom, right = paper.height - _BOTTOM, paper.width - _RIGHT
    grid = "".join(
        f'<line x1="{_LEFT}" x2="{right}" y1="{paper.y(t):.1f}" y2="{paper.y(t):.1f}" stroke="currentColor" '
        'opacity=".13"/>'
        + (f'<text x="{_LEFT - 6}" y="{paper.y(t) + 4:.1f}" text-anchor="end">{t:g}</text>' if up else "")
        for t in _TICKS
    )
    names = (
        f'<text x="{(_LEFT + right) / 2}" y="{paper.height - 4}" text-anchor="middle">{escape(across)}</text>'
    )
    if up:
        middle = (_TOP + bottom) / 2
        names += (
            f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
            f"{escape(up)}</text>"
        )
    return f"{grid}{names}"


def _ticks_across(paper: _Paper, names: Sequence[str]) -> list[str]:
    places = np.linspace(paper.low, paper.high, len(names)).tolist()
    return [
        f'<text x="{paper.x(place):.1f}" y="{paper.height - 20}" text-anchor="middle">{name}</text>'
        for place, name in zip(places, names, strict=True)
    ]


def _score_ticks(paper: _Paper) -> list[str]:
    return _ticks_across(paper, [f"{value:.1f}" for value in np.linspace(paper.low, paper.high, 6).tolist()])


def _threshold(paper: _Paper, threshold: float) -> str:
    x = paper.x(threshold)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{paper.height - _BOTTOM}" stroke="currentColor" '
        f'stroke-dasharray="5 3"/><text x="{x + 5:.1f}" y="{_TOP + 12}">threshold</text>'
    )


def _drawing(paper: _Paper, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {paper.width} {paper.height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
