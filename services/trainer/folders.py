"""A folder of photos on disk -> labelled images, for `loupe fit DIR` and `loupe demo --images`.

Either flat (all normal), or `normal|good|ok` beside, if there are any, `anomaly|anomalous|bad|
defect`. For `loupe label DIR` also masks, by the stem of their photo: in `masks|ground_truth`, and there
for anomaly types in a folder per type. Does not open the photos.
"""

from __future__ import annotations

from pathlib import Path

from services.domain.errors import BadRequest, NotEnoughImages
from services.domain.frame import IMAGE_SUFFIXES
from services.domain.label import Verdict
from services.trainer.dataset import LabelledImage

NORMAL_FOLDERS = ("normal", "good", "ok")
ANOMALY_FOLDERS = ("anomaly", "anomalous", "bad", "defect")
MASK_FOLDERS = ("masks", "ground_truth")
# Some data sets call the mask of 012.png 012_mask.png.
_MASK_SUFFIX = "_mask"
# The type of what nobody named.
_ANY_TYPE = "anomaly"


def read_folder(folder: Path) -> tuple[LabelledImage, ...]:
    """Return the photos under `folder`, sorted, named by their path inside it.

    Raises:
        BadRequest: it is not a folder, or its sub-folders do not say what is normal.
        NotEnoughImages: it holds no normal photo.
    """
    if not folder.is_dir():
        message = f"{folder} is not a folder. Give a folder with photos of good parts."
        raise BadRequest(message, folder=str(folder))
    normal, anomalous = _sub_folders(folder, NORMAL_FOLDERS), _sub_folders(folder, ANOMALY_FOLDERS)
    if anomalous and not normal:
        message = (
            f"{folder} has a folder {anomalous[0].name}, but none called {', '.join(NORMAL_FOLDERS)}. "
            "Put photos of good parts into one: they are what is learnt from."
        )
        raise BadRequest(message, folder=str(folder))
    images = [*_photos(folder, normal or [folder], Verdict.NORMAL)]
    if not images:
        message = (
            f"{folder} holds no photos ({', '.join(sorted(IMAGE_SUFFIXES))}). Put photos of good parts "
            "into it, or into a folder `normal` inside it; 20 or more are best."
        )
        raise NotEnoughImages(message, folder=str(folder), normal_images=0)
    return (*images, *_photos(folder, anomalous, Verdict.ANOMALY))


def read_labelled_folder(folder: Path) -> tuple[tuple[LabelledImage, ...], dict[str, list[tuple[str, Path]]]]:
    """Return the photos that sub-folders label, and for each stem the masks drawn: (anomaly type, file).

    Raises:
        BadRequest: it is not a folder, or no sub-folder labels a photo.
    """
    if not folder.is_dir():
        raise BadRequest(f"{folder} is neither a file nor a folder.", folder=str(folder))
    normal, anomalous = _sub_folders(folder, NORMAL_FOLDERS), _sub_folders(folder, ANOMALY_FOLDERS)
    images = (
        *_photos(folder, normal, Verdict.NORMAL),
        *_photos(folder, anomalous, Verdict.ANOMALY),
    )
    if not images:
        message = (
            f"{folder} has no folder `normal` or `anomaly` with photos ({', '.join(sorted(IMAGE_SUFFIXES))}) "
            "in it. Make them, or say what all photos in it are: `loupe label DIR normal`."
        )
        raise BadRequest(message, folder=str(folder))
    masks: dict[str, list[tuple[str, Path]]] = {}
    for root in _sub_folders(folder, MASK_FOLDERS):
        for one in sorted((root, *(path for path in root.iterdir() if path.is_dir()))):
            for path in _files(one):
                name = _ANY_TYPE if one == root else one.name
                masks.setdefault(path.stem.removesuffix(_MASK_SUFFIX), []).append((name, path))
    return images, masks


def _sub_folders(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the folders inside `folder` that have one of the names, in any case of letters."""
    found = {one.name.lower(): one for one in sorted(folder.iterdir()) if one.is_dir()}
    return [found[name] for name in names if name in found]


def _photos(root: Path, folders: list[Path], label: Verdict) -> list[LabelledImage]:
    """Return the photos directly inside `folders`."""
    return [
        LabelledImage(path, str(path.relative_to(root)), label)
        for folder in folders
        for path in _files(folder)
    ]


def _files(folder: Path) -> list[Path]:
    """Return the photos directly inside a folder, by name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
