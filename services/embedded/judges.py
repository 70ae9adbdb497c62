"""Who judges for `loupe inspect`: the running stack's gateway, else the same model in this process.

Both ways share decoding, scoring and regions, so they give the same numbers. Prints nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from uuid import uuid4

import grpc

from services.adapters.object_store import ObjectStore, folder_store, s3_store
from services.domain.errors import ModelUnavailable, Rejected, RetryLater, UnknownProject, UnreadableImage
from services.domain.frame import Frame
from services.domain.inspection import Inspection
from services.domain.topics import INLINE_LIMIT_BYTES
from services.embedded.addresses import StackAddresses
from services.embedded.drawings import Drawings
from services.embedded.home import Home
from services.vision.decode import decode
from services.vision.runtime import OnnxModel
from services.vision.scoring import judge
from services.vision.verdict import input_size_px, inspection_of
from services.wire import frame as frame_wire
from services.wire import inspection as inspection_wire
from services.wire.gen.loupe.v1 import inspector_pb2, inspector_pb2_grpc

Judge = Callable[[Frame], Inspection]

_CAMERA = "loupe-inspect"
# Reading, decoding and judging of different images overlap; more would only hold more images.
_AT_ONCE = 4
# A unit that is just starting or healing takes some seconds.
_CALL_TIMEOUT_S = 30.0


def judge_files(paths: Iterable[Path], judge_of: Judge) -> Iterator[tuple[Path, Inspection | Rejected]]:
    """Yield each file, in order, with its verdict or with the reason why it has none.

    Raises:
        UnknownProject: no such project, or it has no model.
        RetryLater: nobody could judge.
    """

    def attempt(path: Path) -> tuple[Path, Inspection | Rejected]:
        try:
            return path, judge_of(_frame(path))
        except UnknownProject:
            raise
        except Rejected as error:
            return path, error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(attempt, paths)


def _frame(path: Path) -> Frame:
    try:
        image = path.read_bytes()
    except OSError as error:
        message = f"The file cannot be read: {error.strerror or error}."
        raise UnreadableImage(message) from error
    return Frame(uuid4(), _CAMERA, datetime.now(UTC), image, subject=str(path))


class StackOrLocal:
    """Asks the gateway, and this process from the first time on that the gateway cannot judge."""

    def __init__(self, gateway: Judge, local: Judge) -> None:
        """Prefer `gateway`."""
        self._gateway, self._local = gateway, local
        self.is_local = False

    def __call__(self, frame: Frame) -> Inspection:
        """Judge one image."""
        if not self.is_local and len(frame.image) <= INLINE_LIMIT_BYTES:
            try:
                return self._gateway(frame)
            except (RetryLater, UnknownProject):  # not hosted, or not at the moment
                self.is_local = True
        return self._local(frame)


class GatewayJudge:
    """Judges by the stack's synchronous door."""

    def __init__(self, address: str, project: str) -> None:
        """Connect to `address` (host:port) with the first call."""
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1)]
        self._stub = inspector_pb2_grpc.InspectorStub(grpc.insecure_channel(address, options))
        self._project = project

    def __call__(self, frame: Frame) -> Inspection:
        """Judge one image.

        Raises:
            Rejected: the image cannot be judged.
            UnknownProject: the project is not hosted.
            ModelUnavailable: the gateway or the model does not answer.
        """
        message = frame_wire.to_message(frame)
        message.project = self._project
        try:
            answer = self._stub.Inspect(inspector_pb2.InspectRequest(frame=message), timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise _error_of(error) from error
        return inspection_wire.from_message(answer.inspection)


def _error_of(error: grpc.RpcError) -> Rejected | RetryLater:
    reason = str(error.details()).partition(": ")[2] or str(error.details())
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return UnreadableImage(reason)
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return UnknownProject(reason)
    return ModelUnavailable(reason)


class LocalJudge:
    """Judges by the version that serves, with ONNX Runtime in this process."""

    def __init__(
        self, home: Home, addresses: StackAddresses | None, project: str, drawings: Drawings | None = None
    ) -> None:
        """Read the registry with the first call.

        Args:
            home: where the registry is, and where versions are kept.
            addresses: of a running stack; None: its files are read.
            project: whose version.
            drawings: written of every frame whose subject is one of its photos.
        """
        self._home, self._addresses, self._project = home, addresses, project
        self._drawings = drawings
        self._opening = Lock()

    def __call__(self, frame: Frame) -> Inspection:
        """Judge one image.

        Raises:
            Rejected: the image cannot be judged.
            UnknownProject: no such project, or it has no model.
            BadRequest: a drawing cannot be written.
        """
        with self._opening:
            model = self._model
        manifest = model.manifest
        decoded = decode(frame.image, input_size_px(manifest))
        (found,) = model.infer(decoded.pixels[None])
        judgement = judge(found, manifest)
        if self._drawings is not None:
            size_px = (decoded.width_px, decoded.height_px)
            self._drawings.write(Path(frame.subject), found, manifest, size_px)
        return inspection_of(frame, decoded, manifest, found, judgement, judged_at=datetime.now(UTC))

    @cached_property
    def _model(self) -> OnnxModel:
        return open_version(self._home, self._addresses, self._project)


def open_version(home: Home, addresses: StackAddresses | None, project: str, version: str = "") -> OnnxModel:
    """Return a registered version, ready to run in this process.

    Args:
        home: where the registry is, and where versions are kept.
        addresses: of the running stack; None while none runs.
        project: whose version.
        version: its name; empty: the one that serves.

    Raises:
        UnknownProject: no such project or version, or it has no model.
        CorruptModel: it is not what was registered.
    """
    if addresses is None and not home.path.is_dir():
        message = f"There is no project {project} yet. Make one: loupe fit DIR --project {project}"
        raise UnknownProject(message, project=project)
    # A third of a second of database libraries, for nothing where a running stack judges.
    from services.adapters.database import migrate, open_engine
    from services.trainer.registry import Registry

    migrate(home.database_url)
    registry = Registry(open_engine(home.database_url), _store(home, addresses))
    found = registry.record(project, version).announcement if version else registry.latest(project)
    folder = home.path / "models" / found.project / found.version
    registry.fetch(found, folder)
    return OnnxModel(folder, threads=len(os.sched_getaffinity(0)))


def _store(home: Home, addresses: StackAddresses | None) -> ObjectStore:
    if addresses is None:
        return folder_store(home.objects)
    return s3_store(addresses.s3_endpoint, addresses.s3_key, addresses.s3_secret, addresses.s3_region)
