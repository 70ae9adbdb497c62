"""Maps and masks of judged files, written beside each other under the photos' names (`loupe inspect`).

A map is float32 `.npy` (height, width), a mask an RGB `.png`, both of the upright photo's own size. Judges
nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.domain.errors import BadRequest
from services.domain.model_version import Manifest
from services.vision.outputs import ImageOutputs
from services.vision.type_masks import mask_png, whole_map


@dataclass(frozen=True, slots=True)
class Drawings:
    """Where maps and masks go.

    Attributes:
        maps: folder for maps; None: none are written.
        masks: folder for masks; None: none are written.
        names: of each photo, relative and without suffix; see `names_of`.
    """

    maps: Path | None
    masks: Path | None
    names: Mapping[Path, Path]

    def check(self) -> None:
        """Make the folders, before anything is judged.

        Raises:
            BadRequest: a folder cannot be made, or a photo would be overwritten.
        """
        photos = {photo.resolve() for photo in self.names}
        for folder, suffix in ((self.maps, ".npy"), (self.masks, ".png")):
            if folder is None:
                continue
            hit = next(
                (one for one in self.names.values() if _file(folder, one, suffix).resolve() in photos), None
            )
            if hit is not None:
                message = f"{_file(folder, hit, suffix)} is one of the photos; choose another folder."
                raise BadRequest(message, folder=str(folder))
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"The folder {folder} cannot be made: {error.strerror}."
                raise BadRequest(message, folder=str(folder)) from error

    def write(self, photo: Path, one: ImageOutputs, manifest: Manifest, size_px: tuple[int, int]) -> None:
        """Write what is wanted of one photo of `size_px` (width, height).

        Raises:
            BadRequest: it cannot be written.
        """
        name = self.names[photo]
        try:
            if self.maps is not None:
                path = _file(self.maps, name, ".npy")
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, whole_map(one, manifest, size_px), allow_pickle=False)
            if self.masks is not None:
                path = _file(self.masks, name, ".png")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(mask_png(one, manifest, size_px))
        except OSError as error:
            raise BadRequest(f"{path} cannot be written: {error.strerror}.", path=str(path)) from error


def names_of(photos: Sequence[Path]) -> dict[Path, Path]:
    """Return what each photo's drawings are called, without suffix: its stem.

    Photos that share a stem keep their folders below the folder that they have in common, and those that
    share even that (`a.jpg` and `a.png`) keep their suffix.
    """
    by_stem: dict[str, set[Path]] = defaultdict(set)
    for photo in photos:
        by_stem[photo.stem].add(photo)
    names: dict[Path, Path] = {}
    for stem, alike in by_stem.items():
        if len(alike) == 1:
            names[next(iter(alike))] = Path(stem)
            continue
        # Of the folder, not of the photo: a link is called by where it lies.
        folders = {photo: photo.parent.resolve() for photo in alike}
        root = os.path.commonpath(folders.values())
        for photo in alike:
            folder = folders[photo].relative_to(root)
            twins = sum(one == folders[photo] for one in folders.values())
            names[photo] = folder / (photo.name if twins > 1 else stem)
    return names


def _file(folder: Path, name: Path, suffix: str) -> Path:
    """Return the file of a drawing; a dot in the name is no suffix."""
    return folder / name.with_name(name.name + suffix)
