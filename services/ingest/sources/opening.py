"""From what a person wrote to a source: checks the text, and opens the right kind (arrow 1).

Nothing is read or connected to before `shots`, so ten thousand cameras are opened in a moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from services.adapters.object_store import ObjectStore
from services.domain.camera import Camera, CameraState
from services.domain.errors import BadRequest, SourceUnavailable
from services.domain.frame import IMAGE_SUFFIXES
from services.ingest.sources.bucket import BucketSource
from services.ingest.sources.files import FileSource, SyntheticSource, images_in
from services.ingest.sources.folder import FolderSource
from services.ingest.sources.names import NamedSource, NameRule
from services.ingest.sources.protocol import CapturedBefore, Source, never_captured
from services.ingest.sources.triggers import TriggeredSource, TriggerFeed
from services.ingest.sources.video import VideoSource, is_film
from services.ingest.synthetic import SyntheticLine
from services.ingest.video_child.job import job_of

SYNTHETIC = "synthetic"
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f\x7f]*)?")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")
_KNOWN = (
    "a folder (/data/line-1), a film (/data/shift.mp4), rtsp://…, rtsps://…, http://…, https://…, "
    "usb:/dev/video0, s3://bucket/prefix, push: or synthetic:7"
)


class SourceKind(StrEnum):
    """What a camera films with."""

    FOLDER = "folder"
    FILM = "film"
    STREAM = "stream"
    USB = "usb"
    S3 = "s3"
    PUSH = "push"
    SYNTHETIC = "synthetic"


# Kinds whose pictures pass by; those of the others wait until somebody takes them.
LIVE = frozenset({SourceKind.STREAM, SourceKind.USB})


def check_source(text: str) -> SourceKind:
    """Return what kind of source a text names; opens nothing, so the source may still not be there.

    Raises:
        BadRequest: it names none; the sentence says what can be named, and holds no password.
    """
    if not text.strip() or not text.isprintable():
        raise BadRequest(f"A source is one of: {_KNOWN}.")
    scheme = found.group(1).lower() if (found := _SCHEME.match(text)) else ""
    if scheme in ("rtsp", "rtsps", "http", "https"):
        job_of(text)
        if "@" in text.partition("://")[2].partition("/")[0]:
            raise BadRequest("User and password do not belong into the address; give them as the secret.")
        return SourceKind.STREAM
    if scheme == "usb":
        job_of(text)
        return SourceKind.USB
    if scheme == "s3":
        if not _BUCKET.fullmatch(text) or ".." in text.split("/"):
            raise BadRequest(f"{text} is no address of the form s3://bucket/prefix.")
        return SourceKind.S3
    if scheme == "push":
        if text != "push:":
            raise BadRequest("A camera that gets its pictures by HTTP has the source push: and nothing more.")
        return SourceKind.PUSH
    if text == SYNTHETIC or scheme == SYNTHETIC:
        seed_of(text)
        return SourceKind.SYNTHETIC
    if scheme:
        raise BadRequest(f"{scheme}: is no kind of source. Known are {_KNOWN}.")
    return _kind_of_path(Path(text))


def _kind_of_path(path: Path) -> SourceKind:
    if not path.is_absolute():
        raise BadRequest(
            f"{path} is no whole path: begin with /, because the ingester runs in another folder. "
            f"Other kinds of source are {_KNOWN}."
        )
    if is_film(path):
        return SourceKind.FILM
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise BadRequest(f"{path} is a picture. Name the folder it lies in.")
    return SourceKind.FOLDER


def seed_of(text: str) -> int:
    """Return the seed of `synthetic` or `synthetic:SEED`.

    Raises:
        BadRequest: it is none.
    """
    seed = text.partition(":")[2] or "0"
    if not seed.isascii() or not seed.isdigit() or len(seed) > 9:
        raise BadRequest(f"The seed in {text!r} is no number of up to nine digits, as in `synthetic:7`.")
    return int(seed)


def open_camera(
    camera: Camera,
    *,
    secret: str | None = None,
    store: ObjectStore | None = None,
    feed: TriggerFeed | None = None,
    push: Callable[[str], Source] | None = None,
    captured_before: CapturedBefore = never_captured,
) -> Source:
    """Return a camera's source, ready for `shots`.

    Args:
        camera: what to open.
        secret: `user:password` of a stream.
        store: where `s3://` is.
        feed: gives triggers.
        push: returns the source that HTTP pushes for a camera go to.
        captured_before: so that files and objects that were captured before are not read again.

    Raises:
        BadRequest: it can never be opened as configured; the sentence says why.
        SourceUnavailable: a folder to be shown in a loop is not there now.
    """
    kind = check_source(camera.source)
    if kind is SourceKind.S3:
        if store is None:
            raise BadRequest(f"{camera.source} cannot be read: no object store is configured here.")
        source: Source = BucketSource(
            store, camera.source, keeps_files=camera.keeps_files, captured_before=captured_before
        )
    elif kind is SourceKind.PUSH:
        if push is None:
            raise BadRequest("No pushed pictures can be taken: this ingester has no HTTP door.")
        source = push(camera.camera)
    elif kind is SourceKind.SYNTHETIC:
        source = SyntheticSource(SyntheticLine(seed_of(camera.source)))
    elif kind is SourceKind.FOLDER:
        source = _open_folder(camera, captured_before)
    else:
        source = VideoSource(camera.source, secret=secret, fps=camera.fps, loop=camera.loop)
    if camera.name_pattern:
        source = NamedSource(source, NameRule(camera.name_pattern))
    if camera.is_triggered:
        if feed is None:
            raise BadRequest(f"Camera {camera.camera} waits for triggers, and none can be read here.")
        source = TriggeredSource(source, feed, camera.camera, is_live=kind in LIVE)
    return source


def _open_folder(camera: Camera, captured_before: CapturedBefore) -> Source:
    folder = Path(camera.source)
    if not camera.loop:
        return FolderSource(folder, keeps_files=camera.keeps_files, captured_before=captured_before)
    if not folder.is_dir():
        raise SourceUnavailable(f"The folder {folder} is not there.", CameraState.SOURCE_GONE)
    return FileSource(images_in(folder), loop=True)


def open_source(text: str, *, loop: bool = False, watch: bool = False) -> Source:
    """Return the source of a run that somebody starts by hand: nothing is moved, and a folder has an end.

    Args:
        text: a folder, a film, the address of a camera, `synthetic` or `synthetic:SEED`.
        loop: show a folder or a film over and over.
        watch: show only what comes into a folder from now on.

    Raises:
        BadRequest: it cannot be; the sentence says what can.
    """
    if watch and loop:
        raise BadRequest("A folder is either shown in a loop or watched for new files, not both.")
    if text == SYNTHETIC or text.startswith(f"{SYNTHETIC}:"):
        return SyntheticSource(SyntheticLine(seed_of(text)))
    path = Path(text).expanduser()
    is_camera = "://" in text or text.startswith("usb:")
    if is_camera or is_film(path):
        if watch or (loop and is_camera):
            raise BadRequest("Only a folder can be watched, and only a folder or a film shown in a loop.")
        if not is_camera and not path.is_file():
            raise BadRequest(f"{path} does not exist, or is no file.")
        return VideoSource(text, loop=loop)
    if watch:
        if not path.is_dir():
            raise BadRequest(f"{path} is no folder, so nothing can be watched there.")
        return FolderSource(path, keeps_files=True, only_new=True)
    return FileSource(images_in(path), loop=loop)
