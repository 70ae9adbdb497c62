"""How each camera's pictures drift away from the training photos, apart from defects (arrow 4).

The median over a camera's last frames, whatever their verdicts: light that drifts makes good parts look
anomalous, so leaving those out would hide it, and a median does not mind the few that really are. Gauges in
the results service; the same from the database for `loupe drift`. Raises no event and changes no verdict.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from sqlalchemy import Engine, select

from services.adapters.database import reading
from services.adapters.database.tables import inspections
from services.adapters.metrics import Metrics
from services.domain.inspection import COUNTING_ROLES, Inspection
from services.domain.metrics import PICTURE_DRIFT

# Frames that a camera's gauges look back on, and the fewest that tell anything.
LOOK_BACK_FRAMES, LEAST_FRAMES = 200, 20
# From this place on a camera has drifted: 0 is the training photos' median, 1 their 95 %. Chance does not get
# there: the median of 20 frames like the photos varies by 1.25 / sqrt(20) standard deviations, 0.17 places.
DRIFTED_FROM = 2.0
_MOST_CAMERAS = 1000


@dataclass(frozen=True, slots=True)
class CameraDrift:
    """How a camera's pictures lie to the training photos of the version that judged them.

    Attributes:
        frames: how many were looked at.
        since: when the first of them was captured.
        places: median place of each of `Inspection.picture`.
    """

    camera: str
    project: str
    model_version: str
    frames: int
    since: datetime
    places: Mapping[str, float]

    @property
    def drifted(self) -> tuple[str, ...]:
        """What is away from the training photos, farthest first."""
        away = [name for name, value in self.places.items() if abs(value) >= DRIFTED_FROM]
        return tuple(sorted(away, key=lambda name: -abs(self.places[name])))


class DriftWatch:
    """Keeps the last frames of each camera in mind; used by one thread at a time."""

    def __init__(self, metrics: Metrics) -> None:
        """Show gauges in `metrics`."""
        self._metrics = metrics
        # By camera and project: version, and its last pictures.
        self._last: dict[tuple[str, str], tuple[str, deque[Mapping[str, float]]]] = {}

    def judged(self, stored: Iterable[tuple[str, Inspection]]) -> None:
        """Look at frames that were just stored, with the label of their camera."""
        changed: dict[tuple[str, str], str] = {}
        for label, one in stored:
            key = (one.camera, one.project)
            is_known = key in self._last or len(self._last) < _MOST_CAMERAS
            if one.picture and one.role in COUNTING_ROLES and is_known:
                self._pictures(key, one.model_version).append(one.picture)
                changed[key] = label
        for key, label in changed.items():
            _, pictures = self._last[key]
            if len(pictures) >= LEAST_FRAMES:
                for what, value in places_of(pictures).items():
                    self._metrics.set(PICTURE_DRIFT, value, camera=label, project=key[1], what=what)

    def _pictures(self, key: tuple[str, str], version: str) -> deque[Mapping[str, float]]:
        """Return the last pictures that a version judged; another version knows other photos."""
        if key not in self._last or self._last[key][0] != version:
            self._last[key] = (version, deque(maxlen=LOOK_BACK_FRAMES))
        return self._last[key][1]


def places_of(pictures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each place over pictures of one version.

    >>> places_of([{"focus": -1.0}, {"focus": 0.5}, {"focus": 0.0}])
    {'focus': 0.0}
    """
    names = sorted({name for one in pictures for name in one})
    return {name: median(one[name] for one in pictures if name in one) for name in names}


def drift_of_cameras(engine: Engine, camera: str | None = None) -> tuple[CameraDrift, ...]:
    """Return the drift of each camera and project over the last frames of its newest version, sorted by name.

    Raises:
        DatabaseUnavailable: no answer.
    """
    rows = inspections.c
    counting = rows.role.in_([role.value for role in COUNTING_ROLES])
    cameras = select(rows.camera, rows.project).where(counting).distinct().order_by(rows.camera, rows.project)
    if camera is not None:
        cameras = cameras.where(rows.camera == camera)
    found = []
    with reading(engine) as connection:
        for name, project in connection.execute(cameras).all():
            last = connection.execute(
                select(rows.model_version, rows.picture, rows.captured_at)
                .where(rows.camera == name, rows.project == project, counting)
                .order_by(rows.captured_at.desc())
                .limit(LOOK_BACK_FRAMES)
            ).all()
            told = [row for row in last if row.picture and row.model_version == last[0].model_version]
            if told:
                found.append(
                    CameraDrift(
                        camera=name,
                        project=project,
                        model_version=told[0].model_version,
                        frames=len(told),
                        since=told[-1].captured_at,
                        places=places_of([row.picture for row in told]),
                    )
                )
    return tuple(found)
