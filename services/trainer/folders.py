"""A folder of photos on disk -> labelled images, for `loupe fit DIR` and `loupe demo --images`.

Either flat (all normal), or `normal|good|ok` beside, if there are any, `anomaly|anomalous|bad|
defect`. Does not open the photos.
"""

from __future__ import annotations

from pathlib import Path

from services.domain.errors import BadRequest, NotEnoughImages
from services.domain.frame import IMAGE_SUFFIXES
from services.domain.label import Verdict
from services.trainer.dataset import LabelledImage

NORMAL_FOLDERS = ("normal", "good", "ok")
ANOMALY_FOLDERS = ("anomaly", "anomalous", "bad", "defect")


def read_folder(folder: Path) -> tuple[LabelledImage, ...]:
    """Return the photos under `folder`, sorted, named by their path inside it.

    Raises:
        BadRequest: it is not a folder, or its sub-folders do not say what is normal.
        NotEnoughImages: it holds no normal photo.
    """
    if not folder.is_dir():
        message = f"{folder} is not a folder. Give a folder with photos of good parts."
        raise BadRequest(message, folder=str(folder))
    sub_folders = {one.name.lower(): one for one in sorted(folder.iterdir()) if one.is_dir()}
    normal = [sub_folders[name] for name in NORMAL_FOLDERS if name in sub_folders]
    anomalous = [sub_folders[name] for name in ANOMALY_FOLDERS if name in sub_folders]
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


def _photos(root: Path, folders: list[Path], label: Verdict) -> list[LabelledImage]:
    """Return the photos directly inside `folders`."""
    return [
        LabelledImage(path, str(path.relative_to(root)), label)
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
