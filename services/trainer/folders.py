"""Photos on disk -> labelled images: a folder, or a JSON-lines manifest. Does not open the photos.

A folder is either flat (all normal), or holds `normal|good|ok` and, if there are any, `anomaly|anomalous|
bad|defect`; folders inside the latter name anomaly types. Both may lie in `train` and `test`, which gives
the split; in a `test` beside a `train` other folders name types, too (as in MVTec AD). Masks lie in
`masks|ground_truth` under the stem of their photo (or `<stem>_mask`), and for types in a folder per type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.domain.errors import BadRequest, NotEnoughImages, Rejected
from services.domain.frame import IMAGE_SUFFIXES
from services.domain.label import Split, Verdict
from services.trainer.dataset import ColouredMask, LabelledImage, MaskSource

NORMAL_FOLDERS = ("normal", "good", "ok")
ANOMALY_FOLDERS = ("anomaly", "anomalous", "bad", "defect")
MASK_FOLDERS = ("masks", "ground_truth")
_SPLIT_FOLDERS = {"train": Split.TRAIN, "test": Split.TEST}
# Some data sets call the mask of 012.png 012_mask.png.
_MASK_SUFFIX = "_mask"
# The type of what nobody named.
_ANY_TYPE = "anomaly"


def read_photos(place: Path) -> tuple[LabelledImage, ...]:
    """Return what a folder or a manifest file says of photos; what it cannot say is their `fault`.

    Raises:
        BadRequest, NotEnoughImages: as `read_folder`; or the file cannot be read.
    """
    return read_manifest_file(place) if place.is_file() else read_folder(place)


def read_folder(folder: Path) -> tuple[LabelledImage, ...]:
    """Return the photos under `folder`, named by their path inside it: normal ones first, each sorted.

    Raises:
        BadRequest: it is not a folder, or its sub-folders do not say what is normal.
        NotEnoughImages: it holds no normal photo.
    """
    if not folder.is_dir():
        message = f"{folder} is not a folder. Give a folder with photos of good parts."
        raise BadRequest(message, folder=str(folder))
    parts = _parts(folder)
    anomalous = [one.path for part in parts for one in part.anomalous]
    if anomalous and not any(part.normal for part in parts):
        message = (
            f"{folder} has a folder {anomalous[0].name}, but none called {', '.join(NORMAL_FOLDERS)}. "
            "Put photos of good parts into one: they are what is learnt from."
        )
        raise BadRequest(message, folder=str(folder))
    images = [*_normal_photos(folder, parts)]
    if not images and not anomalous:
        flat = [part for part in parts if part.split is not Split.TEST]
        images = [
            _photo(folder, path, Verdict.NORMAL, one.split) for one in flat for path in _files(one.path)
        ]
    if not images:
        message = (
            f"{folder} holds no photos ({', '.join(sorted(IMAGE_SUFFIXES))}). Put photos of good parts "
            "into it, or into a folder `normal` inside it; 20 or more are best."
        )
        raise NotEnoughImages(message, folder=str(folder), normal_images=0)
    return (*images, *_anomalous_photos(folder, parts))


def read_labelled_folder(folder: Path) -> tuple[LabelledImage, ...]:
    """Return the photos that sub-folders label, as `read_folder`, but also of anomalies alone.

    Raises:
        BadRequest: it is not a folder, or no sub-folder labels a photo.
    """
    if not folder.is_dir():
        raise BadRequest(f"{folder} is neither a file nor a folder.", folder=str(folder))
    parts = _parts(folder)
    images = (*_normal_photos(folder, parts), *_anomalous_photos(folder, parts))
    if not images:
        message = (
            f"{folder} has no folder `normal` or `anomaly` with photos ({', '.join(sorted(IMAGE_SUFFIXES))}) "
            "in it. Make them, or say what all photos in it are: `loupe label DIR normal`."
        )
        raise BadRequest(message, folder=str(folder))
    return images


def read_manifest_file(file: Path) -> tuple[LabelledImage, ...]:
    """Return what the lines of a manifest say, in order; see `services.trainer.label_manifest`.

    Raises:
        BadRequest: the file cannot be read.
    """
    # Half a second of libraries that a folder does not need.
    from services.trainer.label_manifest import read_manifest
    from services.trainer.labelling import Statement

    images = []
    for name, said in read_manifest(file):
        if isinstance(said, Statement) and not str(said.where).startswith("s3://"):
            masks: dict[str, MaskSource] = {
                one.name: ColouredMask(Path(one.where), one.colour) if one.colour else Path(one.where)
                for one in said.masks
            }
            images.append(LabelledImage(Path(str(said.where)), name, said.verdict, said.types, masks))
            continue
        fault = (
            said.message
            if isinstance(said, Rejected)
            else "It lies in an object store; `loupe label --manifest` takes it to a project's dataset."
        )
        images.append(LabelledImage(b"", name, fault=fault))
    return tuple(images)


@dataclass(frozen=True, slots=True)
class _TypedFolder:
    """A folder of anomalous photos, of one type if it has a name."""

    path: Path
    types: tuple[str, ...] = ()


@dataclass(slots=True)
class _Masks:
    """Masks by the stem of their photo, and the type that their folder names, if any."""

    by_stem: dict[str, dict[str | None, Path]] = field(default_factory=dict)
    used: set[Path] = field(default_factory=set)

    def of(self, photo: Path, types: tuple[str, ...]) -> dict[str, MaskSource]:
        """Return the masks of a photo; in data sets with a folder per type, stems repeat among types."""
        found: dict[str, MaskSource] = {}
        for name, path in self.by_stem.get(photo.stem, {}).items():
            if name is None or not types or name in types:
                found.setdefault(name or (types[0] if types else _ANY_TYPE), path)
                self.used.add(path)
        return found


@dataclass(frozen=True, slots=True)
class _Part:
    """The whole folder, or its `train` or `test`."""

    path: Path
    split: Split | None
    normal: tuple[Path, ...]
    anomalous: tuple[_TypedFolder, ...]
    masks: _Masks


def _parts(folder: Path) -> list[_Part]:
    inside = _folders(folder)
    if "train" not in inside:
        return [_part(folder, None, _masks_in(folder))]
    shared = _masks_in(folder)
    return [
        _part(inside[name], split, _Masks({**shared.by_stem, **_masks_in(inside[name]).by_stem}))
        for name, split in _SPLIT_FOLDERS.items()
        if name in inside
    ]


def _part(folder: Path, split: Split | None, masks: _Masks) -> _Part:
    inside = _folders(folder)
    normal = tuple(inside[name] for name in NORMAL_FOLDERS if name in inside)
    named = [inside[name] for name in ANOMALY_FOLDERS if name in inside]
    typed = [_TypedFolder(one, (one.name,)) for root in named for one in _folders(root).values()]
    if split is Split.TEST and not named:
        others = [one for name, one in inside.items() if name not in {*NORMAL_FOLDERS, *MASK_FOLDERS}]
        typed = [_TypedFolder(one, (one.name,)) for one in others]
    return _Part(folder, split, normal, (*(_TypedFolder(one) for one in named), *typed), masks)


def _masks_in(folder: Path) -> _Masks:
    masks = _Masks()
    inside = _folders(folder)
    for root in (inside[name] for name in MASK_FOLDERS if name in inside):
        for name, place in ((None, root), *((one.name, one) for one in _folders(root).values())):
            for path in _files(place):
                masks.by_stem.setdefault(path.stem.removesuffix(_MASK_SUFFIX), {}).setdefault(name, path)
    return masks


def _normal_photos(root: Path, parts: Iterable[_Part]) -> Iterator[LabelledImage]:
    for part in parts:
        for folder in part.normal:
            for path in _files(folder):
                yield _photo(root, path, Verdict.NORMAL, part.split)


def _anomalous_photos(root: Path, parts: list[_Part]) -> Iterator[LabelledImage]:
    """Yield the anomalous photos with their masks, and then each mask that belongs to no photo."""
    for part in parts:
        for folder in part.anomalous:
            for path in _files(folder.path):
                masks = part.masks.of(path, folder.types)
                image = _photo(root, path, Verdict.ANOMALY, part.split)
                yield LabelledImage(path, image.name, image.label, folder.types, masks, image.split)
    if not any(part.anomalous for part in parts):
        return
    used = {path for part in parts for path in part.masks.used}
    # Some data sets have empty masks for good photos: they say what the folder says.
    good = {path.stem for part in parts for folder in part.normal for path in _files(folder)}
    drawn = {
        path
        for part in parts
        for stem, by_type in part.masks.by_stem.items()
        if stem not in good
        for path in by_type.values()
    }
    for path in sorted(drawn - used):
        fault = "No anomalous photo has the name of this mask."
        yield LabelledImage(path, str(path.relative_to(root)), Verdict.ANOMALY, fault=fault)


def _photo(root: Path, path: Path, label: Verdict, split: Split | None) -> LabelledImage:
    return LabelledImage(path, str(path.relative_to(root)), label, split=split)


def _folders(folder: Path) -> dict[str, Path]:
    """Return the folders inside a folder by their names in small letters, sorted."""
    return {one.name.lower(): one for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != "."}


def _files(folder: Path) -> list[Path]:
    """Return the photos directly inside a folder, by name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
