"""The HTTP door of the ingest process: pictures pushed to a camera, and the pages of the process (arrow 1).

`POST /v1/cameras/{camera}/frames` takes one image as the body, or several as multipart/form-data, and
answers 202 once each is on disk or in Kafka, so that a client which heard nothing may send again; a
CloudEvents id makes that harmless. What is being read is bounded, in one request and in all. Judges nothing
and decodes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.adapters.metrics import Metrics
from services.domain.errors import (
    BadRequest,
    BadSettings,
    ImageTooLarge,
    LoupeError,
    Overloaded,
    RetryLater,
    SourceUnavailable,
)
from services.domain.topics import CLAIM_LIMIT_BYTES, MIB
from services.ingest.camera_rows import StoredCamera
from services.ingest.pushed import is_form, is_image, read_attributes, read_multipart, shot_of
from services.ingest.sources.protocol import Settled, Shot
from services.ingest.sources.push import Offer, PushSource

# All requests that are being read; above it further ones are asked to come again.
MAX_READING_BYTES = 256 * MIB
# A frame is safe within milliseconds; a full disk or spool is told before a client's own patience ends.
SAFE_WITHIN_S = 20.0
# A busy camera takes its next picture within this, or the client is asked to come again.
ROOM_WITHIN_S = 5.0
_LOOK_FOR_ROOM_S = 0.02
_STOP_WITHIN_S = 3
# Each holds at most some KB until its body is read.
MAX_REQUESTS = 512
_PUSH = "push:"
_STATUS: tuple[tuple[type[LoupeError], int], ...] = (
    (ImageTooLarge, 413),
    (BadRequest, 400),
    (Overloaded, 429),
    (RetryLater, 503),
)
_INDEX = """Loupe, ingest.

POST /v1/cameras/{camera}/frames   push one image (the body) or several (multipart/form-data)
GET  /asyncapi.json /asyncapi.yaml the topics, for producers and consumers
GET  /metrics /healthz             for Prometheus and probes

A token for a camera: loupe camera add ID push:   or   loupe camera token ID

"""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the door asks of the process.

    Attributes:
        camera: the configuration of a camera, None when there is none of that id; may ask the database.
        source: the hand-over of a camera that runs here, None when it runs nowhere or elsewhere.
        page: lines about the cameras of this process, for people.
        is_healthy: whether the process does its work.
    """

    camera: Callable[[str], StoredCamera | None]
    source: Callable[[str], PushSource | None]
    page: Callable[[], str]
    is_healthy: Callable[[], bool]


class Door:
    """The ASGI application."""

    def __init__(self, rooms: Rooms, metrics: Metrics) -> None:
        """Serve what `rooms` has."""
        self._rooms, self._metrics = rooms, metrics
        self._budget = _Budget()
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics_page),
                Route("/asyncapi.json", _asyncapi),
                Route("/asyncapi.yaml", _asyncapi),
                Route("/v1/cameras/{camera:path}/frames", self._push, methods=["POST"]),
            ]
        )

    async def _index(self, _: Request) -> Response:
        return PlainTextResponse(_INDEX + await run_in_threadpool(self._rooms.page))

    async def _health(self, _: Request) -> Response:
        is_healthy = await run_in_threadpool(self._rooms.is_healthy)
        return PlainTextResponse("ok\n" if is_healthy else "not ready\n", 200 if is_healthy else 503)

    async def _metrics_page(self, _: Request) -> Response:
        return Response(await run_in_threadpool(self._metrics.page), media_type=CONTENT_TYPE_LATEST)

    async def _push(self, request: Request) -> Response:
        try:
            return await self._take(request)
        except HTTPException as refusal:
            return _error(refusal.status_code, refusal.detail)
        except LoupeError as error:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
            return _error(status, error.message)
        except ClientDisconnect:
            # Nobody reads this answer.
            return _error(400, "The client went away.")

    async def _take(self, request: Request) -> Response:
        stored = await self._authorized(request)
        attributes = read_attributes(request.headers)
        kind = attributes.content_type
        if not (is_form(kind) or is_image(kind)):
            raise HTTPException(415, f"The body is {kind}; send an image, bytes, or a form with images.")
        name = stored.camera.camera
        source = self._rooms.source(name)
        if source is None:
            raise SourceUnavailable(f"Camera {name} does not run at this ingester now.", "starting")
        reading = _Reading(self._budget)
        try:
            if is_form(kind):
                images = await read_multipart(request.headers, reading.pieces(request), attributes)
            else:
                images = [(await reading.whole(request), attributes)]
            numbers = range(len(images)) if len(images) > 1 else (None,)
            shots = [
                shot_of(name, image, own, number)
                for (image, own), number in zip(images, numbers, strict=True)
            ]
            del images
            return await _hand_over(source, shots)
        finally:
            reading.close()

    async def _authorized(self, request: Request) -> StoredCamera:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise HTTPException(401, "Send the camera's token: Authorization: Bearer TOKEN.")
        name = request.path_params["camera"]
        stored = await run_in_threadpool(self._rooms.camera, name)
        if stored is None:
            raise HTTPException(404, f"No camera is called {name}.")
        given = hashlib.sha256(token.strip().encode()).hexdigest()
        if not hmac.compare_digest(given, stored.push_token_sha256 or ""):
            raise HTTPException(403, f"The token is not that of camera {name}.")
        if stored.camera.source != _PUSH:
            raise HTTPException(409, f"Camera {name} takes its pictures itself; nothing is pushed to it.")
        if stored.camera.is_paused:
            raise HTTPException(409, f"Camera {name} is paused.")
        return stored


@dataclass(slots=True)
class _Budget:
    """Bytes of requests that are being read or handed over, all together."""

    used_bytes: int = 0


class _Reading:
    """Reads one request within its limit and the budget of all; used on the event loop only."""

    def __init__(self, budget: _Budget) -> None:
        self._budget, self._size_bytes = budget, 0

    async def pieces(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Yield the body.

        Raises:
            ImageTooLarge: above the limit; no more than that was read.
            Overloaded: too much is being read by all requests.
        """
        told = request.headers.get("content-length", "")
        if told.isdigit() and int(told) > CLAIM_LIMIT_BYTES:
            raise _too_large()
        async for piece in request.stream():
            self._size_bytes += len(piece)
            self._budget.used_bytes += len(piece)
            if self._size_bytes > CLAIM_LIMIT_BYTES:
                raise _too_large()
            if self._budget.used_bytes > MAX_READING_BYTES:
                raise Overloaded("Too many pictures are being sent at once.")
            yield piece

    async def whole(self, request: Request) -> bytes:
        """Return the body; raises as `pieces` does."""
        body = bytearray()
        async for piece in self.pieces(request):
            body += piece
        return bytes(body)

    def close(self) -> None:
        """Give the bytes back to the budget."""
        self._budget.used_bytes -= self._size_bytes


async def _hand_over(source: PushSource, shots: Sequence[Shot]) -> Response:
    """Offer pictures in order and wait until each is safe; the answer names those that are."""
    loop = asyncio.get_running_loop()
    frames: list[dict[str, str]] = []
    waiting: list[tuple[Offer, asyncio.Future[Settled | RetryLater]]] = []
    try:
        for shot in shots:
            outcome = loop.create_future()
            offer = Offer(shot, partial(_end_from_thread, loop, outcome))
            await _offer(source, offer)
            waiting.append((offer, outcome))
        end_s = loop.time() + SAFE_WITHIN_S
        while waiting:
            offer, outcome = waiting[0]
            settled = await _settled(source, offer, outcome, end_s - loop.time())
            waiting.pop(0)
            frames.append(_told(settled))
    except RetryLater as error:
        status = 429 if isinstance(error, Overloaded) else 503
        return _error(status, error.message, frames)
    finally:
        for offer, _ in waiting:
            source.withdraw(offer)
    return JSONResponse({"frames": frames}, 202)


async def _offer(source: PushSource, offer: Offer) -> None:
    end_s = asyncio.get_running_loop().time() + ROOM_WITHIN_S
    while True:
        try:
            source.offer(offer)
        except Overloaded:
            if asyncio.get_running_loop().time() >= end_s:
                raise
            await asyncio.sleep(_LOOK_FOR_ROOM_S)
        else:
            return


async def _settled(
    source: PushSource, offer: Offer, outcome: asyncio.Future[Settled | RetryLater], timeout_s: float
) -> Settled:
    """Return what became of a picture.

    Raises:
        Overloaded: the camera did not come to take it; it was taken back.
        RetryLater: it is not known to be safe.
    """
    try:
        found = await asyncio.wait_for(outcome, max(0.0, timeout_s))
    except TimeoutError:
        if source.withdraw(offer):
            raise Overloaded("The spool is full and the camera waits for room.") from None
        raise SourceUnavailable(
            "It is not sure yet that the picture is safe. Sent again with the same ce-id it counts once."
        ) from None
    if isinstance(found, RetryLater):
        raise found
    return found


def _end_from_thread(
    loop: asyncio.AbstractEventLoop,
    outcome: asyncio.Future[Settled | RetryLater],
    found: Settled | RetryLater,
) -> None:
    def end() -> None:
        if not outcome.done():
            outcome.set_result(found)

    # The loop is closed when the door was shut meanwhile: nobody waits any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(end)


def _told(settled: Settled) -> dict[str, str]:
    told = {"frame_id": str(settled.frame_id)}
    return told | {"shed": settled.shed.value} if settled.shed else told


def _too_large() -> ImageTooLarge:
    return ImageTooLarge(f"A request has at most {CLAIM_LIMIT_BYTES // 10**6} MB of images.")


def _error(status: int, sentence: str, frames: Sequence[dict[str, str]] = ()) -> Response:
    headers = {"Retry-After": "1"} if status in {429, 503} else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 413:
        # What the client still sends is not read.
        headers["Connection"] = "close"
    told = {"error": sentence} | ({"frames": list(frames)} if frames else {})
    return JSONResponse(told, status, headers)


def _asyncapi(request: Request) -> Response:
    from services.wire.asyncapi import document

    if request.url.path.endswith(".json"):
        return JSONResponse(document())
    import yaml

    return Response(yaml.safe_dump(document(), sort_keys=False), media_type="application/yaml")


class DoorServer:
    """Uvicorn in a thread; `shutdown` ends it."""

    def __init__(self, door: Door, host: str, port: int) -> None:
        """Listen.

        Raises:
            BadSettings: the port is taken.
        """
        try:
            self._socket = socket.create_server((host, port), backlog=256)
        except OSError as error:
            raise BadSettings(f"Nothing can listen on {host}:{port}: {error.strerror}.") from error
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            door.app, lifespan="off", log_config=None, log_level="warning", access_log=False,
            server_header=False, timeout_graceful_shutdown=_STOP_WITHIN_S, limit_concurrency=MAX_REQUESTS,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), daemon=True, name="door"
        )
        self._thread.start()

    def shutdown(self) -> None:
        """Let requests in hand end, for some seconds at most."""
        self._server.should_exit = True
        self._thread.join(_STOP_WITHIN_S + 2)
        self._socket.close()
