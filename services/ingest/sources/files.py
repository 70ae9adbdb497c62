"""Where images come from: files as they lie, once or over and over, and the synthetic line (arrow 1).

A source gives encoded bytes as they are and never decodes: garbage is the stream's to quarantine.
It does not pace, number or publish (`pipeline`).
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event

from services.domain.errors import BadRequest
from services.domain.frame import IMAGE_SUFFIXES
from services.ingest.sources.filing import text_of
from services.ingest.sources.folder import is_image_name
from services.ingest.sources.protocol import Shot, Unreadable
from services.ingest.synthetic import SyntheticLine


class FileSource:
    """Files in the order given, once or over and over."""

    def __init__(self, files: Sequence[Path], *, loop: bool = False, root: Path | None = None) -> None:
        """Take files.

        Args:
            files: what to show.
            loop: begin again after the last one.
            root: subjects are paths below it; None: subjects are file names.
        """
        self._files, self._loop, self._root = tuple(files), loop, root

    def shots(self, stop: Event) -> Iterator[Shot | Unreadable]:
        """See `Source.shots`."""
        while True:
            for file in self._files:
                if stop.is_set():
                    return
                yield read_shot(file, self._root)
            if not self._loop or not self._files:
                return


class SyntheticSource:
    """The synthetic line, part after part, without end; frame n of the run is part `first_index` + n."""

    def __init__(self, line: SyntheticLine, first_index: int = 0) -> None:
        """Film `line`."""
        self.line, self._first_index = line, first_index

    def shots(self, stop: Event) -> Iterator[Shot]:
        """See `Source.shots`."""
        index = self._first_index
        while not stop.is_set():
            part = self.line.part(index)
            yield Shot(part.jpeg(), "image/jpeg", part.part_id, part.part_id, part.lot_id)
            index += 1


def read_shot(file: Path, root: Path | None) -> Shot | Unreadable:
    """Return a file's bytes, or why there are none."""
    subject = text_of(file.relative_to(root) if root else file.name)
    try:
        image = file.read_bytes()
    except OSError as error:
        return Unreadable(subject, error.strerror or type(error).__name__)
    return Shot(image, mimetypes.guess_type(file.name)[0] or "application/octet-stream", subject)


def images_in(folder: Path) -> tuple[Path, ...]:
    """Return the image files that lie in a folder itself, sorted by name.

    Raises:
        BadRequest: no such folder, not readable, or without images; the sentence says what to do.
    """
    if not folder.exists():
        raise BadRequest(f"{folder} does not exist. Name a folder with images, or `synthetic`.")
    if not folder.is_dir():
        raise BadRequest(f"{folder} is a file. Name the folder it lies in.")
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise BadRequest(f"{folder} cannot be read: {error.strerror}.") from error
    images = tuple(file for file in inside if is_image_name(file.name))
    if not images:
        raise BadRequest(f"{folder} holds no images ({_kinds()}).{_hint(inside)}")
    return images


def _kinds() -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))


def _hint(inside: Iterable[Path]) -> str:
    """Return a sentence about folders inside that do hold images."""
    for folder in inside:
        if folder.is_dir() and any(is_image_name(file.name) for file in folder.iterdir()):
            return f" But {folder} does: name that one."
    return ""
