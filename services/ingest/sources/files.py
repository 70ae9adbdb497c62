"""Where images come from: files, a watched folder, the synthetic line (arrow 1).

A source gives encoded bytes as they are and never decodes: garbage is the stream's to quarantine.
It does not pace, number or publish (`pipeline`).
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event

from services.domain.errors import BadRequest
from services.domain.frame import IMAGE_SUFFIXES
from services.ingest.sources.protocol import Shot, Source, Unreadable
from services.ingest.sources.watch import settled_files
from services.ingest.synthetic import SyntheticLine

SYNTHETIC = "synthetic"


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


class WatchSource:
    """Images that appear in a folder from now on, each once its size stood still."""

    def __init__(self, folder: Path) -> None:
        """Watch `folder`, not the folders in it."""
        self._folder = folder

    def shots(self, stop: Event) -> Iterator[Shot | Unreadable | None]:
        """See `Source.shots`."""
        for file in settled_files(self._folder, stop):
            if file is None:
                yield None
            elif is_image(file):
                yield read_shot(file, None)


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
    # A name that is no UTF-8 has a readable stand-in: headers are text.
    subject = os.fsencode(file.relative_to(root) if root else file.name).decode("utf-8", "replace")
    try:
        image = file.read_bytes()
    except OSError as error:
        return Unreadable(subject, error.strerror or type(error).__name__)
    return Shot(image, mimetypes.guess_type(file.name)[0] or "application/octet-stream", subject)


def is_image(file: Path) -> bool:
    """Tell by its name whether a file is taken for an image; hidden files are not."""
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


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
    images = tuple(file for file in inside if is_image(file))
    if not images:
        raise BadRequest(f"{folder} holds no images ({_kinds()}).{_hint(inside)}")
    return images


def open_source(text: str, *, loop: bool = False, watch: bool = False) -> Source:
    """Return the source that a person named: a folder, `synthetic` or `synthetic:SEED`.

    Raises:
        BadRequest: it cannot be; the sentence says what can.
    """
    if text == SYNTHETIC or text.startswith(f"{SYNTHETIC}:"):
        seed = text.partition(":")[2] or "0"
        if not seed.isascii() or not seed.isdigit() or len(seed) > 9:
            raise BadRequest(f"The seed in {text!r} is no number of up to nine digits, as in `synthetic:7`.")
        return SyntheticSource(SyntheticLine(int(seed)))
    folder = Path(text).expanduser()
    if watch and loop:
        raise BadRequest("A folder is either shown in a loop or watched for new files, not both.")
    if watch:
        if not folder.is_dir():
            raise BadRequest(f"{folder} is no folder, so nothing can be watched there.")
        return WatchSource(folder)
    return FileSource(images_in(folder), loop=loop)


def _kinds() -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))


def _hint(inside: Iterable[Path]) -> str:
    """Return a sentence about folders inside that do hold images."""
    for folder in inside:
        if folder.is_dir() and any(is_image(file) for file in folder.iterdir()):
            return f" But {folder} does: name that one."
    return ""
