"""The real sets on disk -> photos that train and photos that test, split by name and seed alone (arrow 6).

Each set has a reader of its own, because each came with a layout of its own. Nothing here looks at what a
model says of a photo. Sets that a folder does not have are left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.domain.errors import BadRequest
from services.domain.frame import IMAGE_SUFFIXES
from services.domain.label import Split, Verdict
from services.trainer.dataset import LabelledImage

# Held-back normals: the seed and the share with which all figures that these are compared with were made.
SPLIT_SEED = 20240
HELD_BACK_SHARE = 0.3
Photos = tuple[LabelledImage, ...]


@dataclass(frozen=True, slots=True)
class BenchSet:
    """One set, split.

    Attributes:
        name: as in `--sets`.
        train: normal photos to learn from.
        normals: normal photos held back.
        anomalies: anomalous photos, with masks where they were drawn.
        objects: name of a photo -> the object it shows, where the same object recurs.
    """

    name: str
    train: Photos
    normals: Photos
    anomalies: Photos
    objects: Mapping[str, str]

    @property
    def is_masked(self) -> bool:
        """Tell whether any anomaly was drawn."""
        return any(one.masks for one in self.anomalies)

    @property
    def counts(self) -> str:
        """Return how many photos train and test, for tables: `31; 14 + 40`."""
        return f"{len(self.train)}; {len(self.normals)} + {len(self.anomalies)}"


def read_sets(data: Path, names: Sequence[str] = ()) -> tuple[BenchSet, ...]:
    """Return the sets called `names`, default all that `data` holds.

    Raises:
        BadRequest: a name is unknown, a set that was asked for is not there, or none is.
    """
    unknown = [name for name in names if name not in _READERS]
    if unknown:
        raise BadRequest(f"There is no set {unknown[0]}; known are {', '.join(_READERS)}.", set=unknown[0])
    absent = [name for name in names if not (data / _FOLDERS[name]).is_dir()]
    if absent:
        raise BadRequest(f"{data} has no set {absent[0]}: {_FOLDERS[absent[0]]} is missing.", set=absent[0])
    found = tuple(_READERS[name](data) for name in names or _READERS if (data / _FOLDERS[name]).is_dir())
    if not found:
        message = f"{data} holds none of the sets {', '.join(_READERS)}. Give their folder: `--data DIR`."
        raise BadRequest(message, data=str(data))
    return found


def hold_back(
    normals: Sequence[LabelledImage],
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    """Return (photos that train, photos held back): names sorted, shuffled by one seed, 30 % held back."""
    shuffled = sorted(normals, key=lambda one: one.name)
    random.Random(SPLIT_SEED).shuffle(shuffled)  # noqa: S311 - a split, no secret
    held = round(HELD_BACK_SHARE * len(shuffled))
    return tuple(shuffled[held:]), tuple(shuffled[:held])


def _cookies(data: Path) -> BenchSet:
    """Cookies come split: 31 normals train; 14 normals, 32 masked and 8 unmasked anomalies test."""
    root = data / _FOLDERS["cookies"]
    training, test = root / "dataset-files" / "training-images", root / "test-images"
    masks = root / "dataset-files" / "mask-images"
    masked = [
        replace(one, types=("cracked",), masks={"cracked": masks / f"{Path(one.name).stem}.png"})
        for one in _photos(training, Verdict.ANOMALY, "anomaly")
    ]
    return BenchSet(
        "cookies",
        train=_photos(training, Verdict.NORMAL, "normal"),
        normals=_photos(test, Verdict.NORMAL, "test-normal"),
        anomalies=(*masked, *_photos(test, Verdict.ANOMALY, "test-anomaly")),
        objects={},
    )


def _piped(data: Path, name: str) -> BenchSet:
    """Pipe bearings: the mask of `..._D_01_2.png` is `..._GT_01_2.png`; `01` is the object."""
    root = data / _FOLDERS[name]
    anomalies = [
        replace(one, masks={"defect": root / "mask" / one.name.replace("_D_", "_GT_")})
        for one in _photos(root / "defect", Verdict.ANOMALY)
    ]
    normals = _photos(root / "normal", Verdict.NORMAL)
    return _split(name, normals, anomalies, lambda one: one.name.rsplit("_", 1)[0])


def _screws(data: Path) -> BenchSet:
    root = data / _FOLDERS["screws"]
    return _split(
        "screws", _photos(root / "normal", Verdict.NORMAL), _photos(root / "missing", Verdict.ANOMALY)
    )


def _ball_screw(data: Path) -> BenchSet:
    """All nine photos without pitting train: there are too few to hold any back."""
    root = data / _FOLDERS["ball-screw"]
    anomalies = tuple(
        replace(one, masks={"pitting": root / "mask" / f"{Path(one.name).stem}.png"})
        for one in _photos(root / "pitting", Verdict.ANOMALY)
    )
    return BenchSet("ball-screw", _photos(root / "no-label", Verdict.NORMAL), (), anomalies, {})


def _scratch_plates(data: Path) -> BenchSet:
    """Four crops of each plate; without masks."""
    root = data / _FOLDERS["scratch-plates"]
    normals = _photos(root / "images" / "good", Verdict.NORMAL)
    anomalies = _photos(root / "images" / "bad", Verdict.ANOMALY)
    return _split("scratch-plates", normals, anomalies, lambda one: one.name.split("-cropped", 1)[0])


def _split(
    name: str,
    normals: Sequence[LabelledImage],
    anomalies: Sequence[LabelledImage],
    object_of: Callable[[LabelledImage], str] | None = None,
) -> BenchSet:
    train, held = hold_back(normals)
    objects = {one.name: object_of(one) for one in (*normals, *anomalies)} if object_of else {}
    return BenchSet(name, train, held, tuple(anomalies), objects)


def _photos(folder: Path, label: Verdict, prefix: str = "") -> Photos:
    """Return the photos of a folder whose names begin with `prefix`, by name, each for training or test."""
    return tuple(
        LabelledImage(path, path.name, label, split=Split.TRAIN)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name.startswith(prefix)
    )


_FOLDERS = {
    "cookies": "aws-lookout-cookies",
    "PA_BRG01_RL": "piped-paper/PA_BRG01_RL",
    "PA_ZPB01_RL": "piped-paper/PA_ZPB01_RL",
    "screws": "screws",
    "ball-screw": "bsdata-ballscrew",
    "scratch-plates": "aws-scratch-plates",
}
_READERS: Mapping[str, Callable[[Path], BenchSet]] = {
    "cookies": _cookies,
    "PA_BRG01_RL": lambda data: _piped(data, "PA_BRG01_RL"),
    "PA_ZPB01_RL": lambda data: _piped(data, "PA_ZPB01_RL"),
    "screws": _screws,
    "ball-screw": _ball_screw,
    "scratch-plates": _scratch_plates,
}
SET_NAMES: tuple[str, ...] = tuple(_READERS)
