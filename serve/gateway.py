"""The synchronous door: gRPC `Inspect`, one image in, one verdict out (arrow 2). Translates only.

Nothing is stored and nothing is retried. The server is our own and not Ray Serve's gRPC proxy, because
that one listens on every address of the machine and cannot be told otherwise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn
from uuid import uuid4

import grpc

from serve.units import Units, error_named
from services.adapters.clock import Clock
from services.domain import errors
from services.domain.errors import BadSettings, LoupeError, UnknownProject
from services.domain.frame import Frame
from services.domain.topics import RECORD_LIMIT_BYTES
from services.wire import frame as frame_wire
from services.wire import inspection as inspection_wire
from services.wire.batch import Outcome, Rejection
from services.wire.gen.loupe.v1 import frame_pb2, inspector_pb2, inspector_pb2_grpc
from services.wire.times import to_timestamp

logger = logging.getLogger(__name__)

# Enough to keep every unit of a node busy; calls beyond that are refused at once, not queued.
MAX_CALLS = 32
STOP_GRACE_S = 5.0
# A replica that is being replaced lets go of the port within its own grace.
_BIND_PATIENCE_S = 20.0
_UNNAMED = "gateway"

_Code = grpc.StatusCode
# Every error of the tree by its nearest named ancestor.
STATUS_OF: Mapping[type[LoupeError], grpc.StatusCode] = {
    errors.RetryLater: _Code.UNAVAILABLE,
    errors.Overloaded: _Code.RESOURCE_EXHAUSTED,
    errors.Rejected: _Code.INVALID_ARGUMENT,
    errors.UnknownProject: _Code.NOT_FOUND,
    errors.UnknownObject: _Code.NOT_FOUND,
    # Chance or this image: a single try cannot tell, so the caller may try once more.
    errors.FrameCrashesModel: _Code.ABORTED,
    errors.StopProcess: _Code.INTERNAL,
}


def status_of(error: LoupeError) -> grpc.StatusCode:
    """Return the gRPC status that an error means to a caller."""
    return next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)


class InspectorDoor(inspector_pb2_grpc.InspectorServicer):
    """The service of `proto/loupe/v1/inspector.proto`.

    Attributes:
        projects: hosted now.
    """

    def __init__(self, units: Units, clock: Clock) -> None:
        """Ask `units`."""
        self._units, self._clock = units, clock
        self.projects: tuple[str, ...] = ()

    def Inspect(self, request: inspector_pb2.InspectRequest, context: Any) -> inspector_pb2.InspectResponse:  # noqa: N802 - the proto's name
        """Judge one image; see the proto for the statuses."""
        try:
            frame = self._frame_of(request.frame)
            outcome, mask_png = self._asked(self._project_of(request.frame.project), frame, request.mask)
            if isinstance(outcome, Rejection):
                raise error_named(outcome)
        except LoupeError as error:
            _abort(context, error)
        inspection = inspection_wire.to_message(outcome)
        return inspector_pb2.InspectResponse(inspection=inspection, mask_png=mask_png)

    def _asked(self, project: str, frame: Frame, is_masked: bool) -> tuple[Outcome, bytes]:
        """Return a unit's verdict, with the mask if it is wanted."""
        if is_masked:
            return self._units.inspect_with_mask(project, frame)
        (outcome,) = self._units.inspect(project, [frame])
        return outcome, b""

    def _project_of(self, wanted: str) -> str:
        hosted = ", ".join(self.projects) or "none"
        if wanted and wanted not in self.projects:
            raise UnknownProject(f"No project {wanted!r} is hosted; hosted are: {hosted}.", project=wanted)
        if not wanted and len(self.projects) != 1:
            raise UnknownProject(f"Name a project; hosted are: {hosted}.")
        return wanted or self.projects[0]

    def _frame_of(self, message: frame_pb2.Frame) -> Frame:
        """Return the frame, with what a caller may leave out."""
        message.frame_id = message.frame_id or str(uuid4())
        message.camera = message.camera or _UNNAMED
        if not message.HasField("captured_at"):
            message.captured_at.CopyFrom(to_timestamp(self._clock.now()))
        return frame_wire.from_message(message)


def _abort(context: Any, error: LoupeError) -> NoReturn:
    context.abort(status_of(error), f"{error.cause}: {error.message}")
    raise AssertionError("abort raises")


class Gateway:
    """The Serve deployment; one replica a node, since it binds the node's port."""

    def __init__(self, make_door: Callable[[], InspectorDoor], find_address: Callable[[], str]) -> None:
        """Listen on the address (host:port) that `find_address` gives on this node.

        Raises:
            BadSettings: somebody else listens there.
        """
        self._door, address = make_door(), find_address()
        self._server = grpc.server(
            ThreadPoolExecutor(MAX_CALLS, "gateway"),
            maximum_concurrent_rpcs=MAX_CALLS,
            options=[
                ("grpc.max_receive_message_length", RECORD_LIMIT_BYTES),
                # Two servers must not share the port: half of the calls would go to the wrong one.
                ("grpc.so_reuseport", 0),
            ],
        )
        inspector_pb2_grpc.add_InspectorServicer_to_server(self._door, self._server)
        _bind(self._server, address)
        self._server.start()
        logger.info("listening on %s", address)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Follow `{projects}`."""
        self._door.projects = tuple(user_config.get("projects", ()))

    def __del__(self) -> None:
        """Refuse new calls and finish those in flight; Serve calls this at the end."""
        self._server.stop(STOP_GRACE_S).wait()


def _bind(server: Any, address: str) -> None:
    end_monotonic_s = time.monotonic() + _BIND_PATIENCE_S
    while True:
        try:
            server.add_insecure_port(address)
            return
        except RuntimeError as error:
            if time.monotonic() > end_monotonic_s:
                message = f"The gateway cannot listen on {address}: {error}"
                raise BadSettings(message, address=address) from error
            time.sleep(0.5)
