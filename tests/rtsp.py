"""A small RTSP camera for tests: H.264 over TCP (RFC 2326, 6184), on loopback, with faults on demand.

It shows the pictures of `tests.films.h264_units` over and over at its own rate to every client.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Self

from tests.films import Film, h264_units

_REALM, _NONCE = "camera", "5ca1ab1e"
_MAX_PAYLOAD_BYTES = 1400
_CLOCK_HZ = 90_000
_SPS, _PPS = 7, 8
_FU_A = 28


class Fault(Enum):
    """What goes wrong; may be changed while the camera runs."""

    NONE = auto()
    NOT_FOUND = auto()  # every path is 404
    DROP = auto()  # the connection ends in mid-stream
    STALL = auto()  # connected, and nothing comes
    GARBAGE = auto()  # random bytes instead of RTP payloads
    FREEZE = auto()  # the same key picture again and again


@dataclass
class _Client:
    """One connection."""

    socket: socket.socket
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_gone: threading.Event = field(default_factory=threading.Event)

    def send(self, data: bytes) -> None:
        with self.lock:
            self.socket.sendall(data)

    def close(self) -> None:
        self.is_gone.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class RtspCamera:
    """A camera on a port of its own; `with` starts and stops it, and it can be started again."""

    def __init__(
        self,
        film: Film | None = None,
        *,
        secret: str | None = None,
        is_digest: bool = False,
        port: int = 0,
        pictures: Sequence[tuple[bytes, ...]] | None = None,
    ) -> None:
        """Encode the film.

        Args:
            film: what it shows; its `fps` is the camera's.
            secret: `user:password` that clients must have.
            is_digest: ask for Digest instead of Basic authentication.
            port: 0: any.
            pictures: NAL units of each picture, instead of the film's numbered ones.
        """
        self.film = film or Film(frames=60, fps=30)
        self._pictures = list(pictures or h264_units(self.film))
        self._secret, self._is_digest, self.port = secret, is_digest, port
        self.fault = Fault.NONE
        self.sent = 0
        self._clients: list[_Client] = []
        self._listener: socket.socket | None = None

    @property
    def address(self) -> str:
        """Where it is."""
        return f"rtsp://127.0.0.1:{self.port}/line"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; on the port of the last time if there was one."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Close everything; connections are refused from then on."""
        if self._listener is not None:
            # Closing alone would leave the thread in accept() and the port open.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for client in self._clients:
            client.close()
        self._clients.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = _Client(listener.accept()[0])
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: _Client) -> None:
        """Answer a client's requests until it goes."""
        with contextlib.suppress(OSError, EOFError), client.socket.makefile("rb") as incoming:
            while True:
                first = incoming.read(1)
                if first == b"$":  # the client's RTCP reports
                    incoming.read(struct.unpack(">BH", incoming.read(3))[1])
                    continue
                lines = [first + incoming.readline()]
                while (line := incoming.readline()) not in (b"\r\n", b""):
                    lines.append(line)
                if not first or not line:
                    break
                self._answer(client, b"".join(lines).decode())
        client.close()

    def _answer(self, client: _Client, request: str) -> None:
        method, uri, _ = request.split(" ", 2)
        headers = dict(re.findall(r"^([\w-]+): *(.*?)\r?$", request, re.MULTILINE))
        extra, body, status = "", "", "200 OK"
        if not self._is_allowed(method, headers.get("Authorization", "")):
            scheme = (
                f'Digest realm="{_REALM}", nonce="{_NONCE}"' if self._is_digest else f'Basic realm="{_REALM}"'
            )
            status, extra = "401 Unauthorized", f"WWW-Authenticate: {scheme}\r\n"
        elif self.fault is Fault.NOT_FOUND and method != "OPTIONS":
            status = "404 Not Found"
        elif method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
        elif method == "DESCRIBE":
            body = self._description()
            extra = f"Content-Type: application/sdp\r\nContent-Base: {uri}/\r\n"
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1234;timeout=60\r\n"
        elif method == "PLAY":
            extra = "Session: 1234\r\n"
        head = f"RTSP/1.0 {status}\r\nCSeq: {headers.get('CSeq', '0')}\r\n{extra}"
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        if method == "PLAY" and status == "200 OK":
            threading.Thread(target=self._play, args=(client,), daemon=True).start()

    def _is_allowed(self, method: str, authorization: str) -> bool:
        if self._secret is None:
            return True
        if not self._is_digest:
            return authorization == "Basic " + base64.b64encode(self._secret.encode()).decode()
        given = dict(re.findall(r'(\w+)="([^"]*)"', authorization))
        user, _, password = self._secret.partition(":")
        ours = _md5(f"{user}:{_REALM}:{password}")
        theirs = _md5(f"{method}:{given.get('uri', '')}")
        expected = _md5(f"{ours}:{_NONCE}:{theirs}")
        return given.get("username") == user and given.get("response") == expected

    def _description(self) -> str:
        sets = [unit for unit in self._pictures[0] if unit[0] & 31 in (_SPS, _PPS)]
        sprop = ",".join(base64.b64encode(unit).decode() for unit in sets)
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sprop}\r\na=control:track0\r\n"
        )

    def _play(self, client: _Client) -> None:
        """Send pictures at the camera's rate until the client goes or a fault stops them."""
        sequence, number, begun_s = 0, 0, time.monotonic()
        with contextlib.suppress(OSError):
            while not client.is_gone.wait(max(0.0, begun_s + number / self.film.fps - time.monotonic())):
                if self.fault is Fault.DROP:
                    client.close()
                    return
                if self.fault is Fault.STALL:
                    client.is_gone.wait()
                    return
                units = self._pictures[0 if self.fault is Fault.FREEZE else number % len(self._pictures)]
                if self.fault is Fault.GARBAGE:
                    units = tuple(unit[:1] + b"\xaa" * (len(unit) - 1) for unit in units)
                stamp = number * _CLOCK_HZ // self.film.fps
                payloads = [part for unit in units for part in fragments(unit)]
                for at, payload in enumerate(payloads):
                    client.send(_interleaved(payload, sequence, stamp, is_last=at == len(payloads) - 1))
                    sequence += 1
                number += 1
                self.sent += 1


def fragments(unit: bytes) -> list[bytes]:
    """Return the RTP payloads of a NAL unit: itself, or FU-A fragments (RFC 6184, 5.8)."""
    if len(unit) <= _MAX_PAYLOAD_BYTES:
        return [unit]
    indicator, kind = unit[0] & 0xE0 | _FU_A, unit[0] & 0x1F
    pieces = [unit[at : at + _MAX_PAYLOAD_BYTES] for at in range(1, len(unit), _MAX_PAYLOAD_BYTES)]
    last = len(pieces) - 1
    return [
        bytes((indicator, (at == 0) << 7 | (at == last) << 6 | kind)) + piece
        for at, piece in enumerate(pieces)
    ]


def _interleaved(payload: bytes, sequence: int, stamp: int, *, is_last: bool) -> bytes:
    """Return an RTP packet on channel 0 of the RTSP connection (RFC 2326, 10.12)."""
    marker = is_last << 7 | 96
    header = struct.pack(">BBHII", 0x80, marker, sequence & 0xFFFF, stamp & 0xFFFFFFFF, 0x10C0FFEE)
    return struct.pack(">cBH", b"$", 0, len(header) + len(payload)) + header + payload


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
