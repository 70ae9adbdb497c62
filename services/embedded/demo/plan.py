"""Which photos train, which are filmed, and by which camera: the plan of a demo, made before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.domain.errors import BadRequest
from services.domain.label import Verdict
from services.ingest.synthetic.line import SyntheticLine, write_folder
from services.trainer.dataset import LabelledImage
from services.trainer.fit import check_normals
from services.trainer.folders import read_folder
from services.trainer.splits import split_normals

# Enough normals for a threshold that keeps 2 % (30 support 3.2 % by counting), and a film of about
# twenty seconds at the default rate with some defects in it.
SYNTHETIC_NORMALS = 120
SYNTHETIC_ANOMALIES = 24
TRAIN_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Film:
    """What one camera will see, in order."""

    camera: str
    images: tuple[LabelledImage, ...]


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Photos of a demo.

    Attributes:
        folder: where the photos lie; `source` in the report is relative to it.
        train: normal photos the detector is fitted from.
        films: the other photos, each filmed once.
    """

    folder: Path
    train: tuple[LabelledImage, ...]
    films: tuple[Film, ...]

    @property
    def labels(self) -> dict[str, Verdict]:
        """Name of every filmed photo -> what is known of it."""
        return {image.name: image.label for film in self.films for image in film.images}


def plan_from_folder(folder: Path, *, cameras: int, seed: int) -> DemoPlan:
    """Split a user's folder: a seeded 70 % of the normals train, every other photo is filmed once.

    Raises:
        BadRequest: no such folder, or nothing is left to film.
        NotEnoughImages: too few normal photos.
    """
    images = [one for one in read_folder(folder) if not one.fault]
    train, rest = split_normals(images, share=TRAIN_SHARE, seed=seed)
    # Before the stack is started: the fit runs beside that, and would say so half a minute later.
    check_normals(len(train))
    if not rest:
        raise BadRequest(f"All photos of {folder} are needed for training; add some more to film.")
    return DemoPlan(folder, tuple(train), _films(rest, cameras))


def plan_synthetic(folder: Path, *, cameras: int, seed: int) -> DemoPlan:
    """Render the synthetic line of this seed into `folder`, whole or not at all, and plan with it."""
    if not folder.is_dir():
        rendered = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(rendered, ignore_errors=True)
        write_folder(
            SyntheticLine(seed=seed), rendered, normals=SYNTHETIC_NORMALS, anomalies=SYNTHETIC_ANOMALIES
        )
        rendered.rename(folder)
    return plan_from_folder(folder, cameras=cameras, seed=seed)


def _films(images: Sequence[LabelledImage], cameras: int) -> tuple[Film, ...]:
    """Deal the photos to cameras in turn, good ones and bad ones apart, and mix each hand evenly."""
    normals = [image for image in images if image.label is Verdict.NORMAL]
    anomalies = [image for image in images if image.label is Verdict.ANOMALY]
    count = min(cameras, len(images))
    # The last camera takes the first anomaly, so that nobody goes empty while there are photos.
    hands = [_mixed(normals[n::count], anomalies[count - 1 - n :: count]) for n in range(count)]
    return tuple(Film(f"camera-{n + 1}", hand) for n, hand in enumerate(hands) if hand)


def _mixed(*groups: Sequence[LabelledImage]) -> tuple[LabelledImage, ...]:
    """Spread each group evenly over the whole."""
    ranked = [((n + 0.5) / len(group), image) for group in groups for n, image in enumerate(group)]
    return tuple(image for _, image in sorted(ranked, key=lambda pair: (pair[0], pair[1].name)))
