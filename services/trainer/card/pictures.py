"""Photos for the card, with what the model and what a person marks, as small inline JPEGs (arrow 6)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.domain.label import Verdict
from services.domain.model_version import Calibration
from services.vision.regions import smooth_map

_SIDE_PX = 200
_RED = np.array([230, 30, 50], np.float32)
_WHITE = np.array([255, 255, 255], np.float32)
# Of each outcome; enough to see what kind they are.
_MOST_OF_EACH = 8


@dataclass(frozen=True, slots=True)
class Shown:
    """A photo that the card may show, with what came out.

    Attributes:
        name: as in reports.
        pixels: (S, S, 3) uint8 RGB.
        anomaly_map: (m, m) float32.
        score: of the graph.
        truth: what a person said.
        is_anomalous: what the model says.
        mask: (S, S) bool that a person drew; None without.
    """

    name: str
    pixels: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32]
    score: float
    truth: Verdict
    is_anomalous: bool
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Wall:
    """Photos of one outcome.

    Attributes:
        title: for people.
        count: how many there were; `figures` shows some of them.
        figures: (JPEG as base64, name, score).
    """

    title: str
    count: int
    figures: tuple[tuple[str, str, float], ...]


def walls_of(shown: Sequence[Shown], calibration: Calibration) -> tuple[Wall, ...]:
    """Return the photos by outcome, the most telling first: mistakes far from the threshold, hits near it."""
    outcomes = (
        ("Missed anomalies", Verdict.ANOMALY, False, False),
        ("False alarms", Verdict.NORMAL, True, True),
        ("Found anomalies, the closest calls first", Verdict.ANOMALY, True, False),
        ("Good parts passed, the closest calls first", Verdict.NORMAL, False, True),
    )
    walls = []
    for title, truth, is_anomalous, highest_first in outcomes:
        found = [one for one in shown if one.truth is truth and one.is_anomalous is is_anomalous]
        found.sort(key=lambda one: -one.score if highest_first else one.score)
        if found:
            figures = tuple((overlay(one, calibration), one.name, one.score) for one in found[:_MOST_OF_EACH])
            walls.append(Wall(title, len(found), figures))
    return tuple(walls)


def overlay(one: Shown, calibration: Calibration) -> str:
    """Return the photo as base64 JPEG: red where the map is high, a white line round what a person drew."""
    smooth = smooth_map(one.anomaly_map, calibration.map_sigma_px, len(one.pixels))
    half = max(calibration.map_threshold / 2, 1e-3)
    strength = np.clip((smooth - half) / half, 0, 1) * 0.6
    size = (_SIDE_PX, _SIDE_PX)
    alpha = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(size), np.float32)[:, :, None]
    small = np.asarray(Image.fromarray(one.pixels).resize(size), np.float32)
    tinted = small * (1 - alpha) + _RED * alpha
    if one.mask is not None:
        tinted = np.where(_outline(one.mask, size)[:, :, None], _WHITE, tinted)
    buffer = BytesIO()
    Image.fromarray(tinted.astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _outline(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the border cells of a mask at another size."""
    # The highest of the pixels that a small one covers: specks must not vanish.
    grey = Image.fromarray(mask.astype(np.float32) * 255).resize(size, Image.Resampling.BOX)
    inside = np.asarray(grey) > 0
    shrunk = inside.copy()
    shrunk[1:] &= inside[:-1]
    shrunk[:-1] &= inside[1:]
    shrunk[:, 1:] &= inside[:, :-1]
    shrunk[:, :-1] &= inside[:, 1:]
    return np.asarray(inside & ~shrunk)
