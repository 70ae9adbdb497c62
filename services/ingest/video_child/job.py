"""What to read, worked out from a camera's address (arrow 1). Imports no FFmpeg: the parent uses it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from services.domain.camera import shown_source
from services.domain.errors import BadRequest

# Connecting, a handshake and the first key frame: cameras send one every 1 to 10 s.
OPEN_TIMEOUT_S = 20.0
# A camera at 1 frame/s is well; one that sends nothing for so long is not, and is connected anew.
# FFmpeg's RTSP client tries a second time, so there it takes up to twice as long.
READ_TIMEOUT_S = 5.0
# The reader returns from every call within the timeouts above; else a driver or a resolver holds it.
STUCK_AFTER_S = OPEN_TIMEOUT_S + 5.0

_RTSP_OPTIONS = {
    # Over UDP every lost packet damages pictures until the next key frame.
    "rtsp_transport": "tcp",
    # No sound: it would cross the network to be thrown away.
    "allowed_media_types": "video",
    # Of one socket call, in microseconds: FFmpeg then says "timed out" instead of "invalid data".
    "timeout": str(round(READ_TIMEOUT_S * 1e6)),
    "protocol_whitelist": "rtsp,rtsps,tcp,tls,rtp,udp",
}
_HTTP_OPTIONS = {"protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto"}
# A film is data: it may name no other file and no address, and it is read as a film and not as text art.
_FILM_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,avi,matroska,webm,mpegts,mpeg,mpegvideo,mjpeg,h264,hevc,m4v,asf,flv,ivf,ogg",
}
_OPTIONS = {"rtsp": _RTSP_OPTIONS, "rtsps": _RTSP_OPTIONS, "http": _HTTP_OPTIONS, "https": _HTTP_OPTIONS}


@dataclass(frozen=True, slots=True)
class Job:
    """What the child is told.

    Attributes:
        url: what FFmpeg opens, with user and password.
        format: FFmpeg's name of the format; None: it finds out.
        options: FFmpeg's options.
        is_live: pictures do not wait: the newest counts, and there is no end.
        shown: the address for people, without user and password.
        name: the beginning of subjects: a film's file name or the kind of camera.
        fps: pictures per second at most, None: all.
        loop: a film begins again.
        parent_id: the process that waits for the pictures.
    """

    url: str = field(repr=False)
    format: str | None
    options: dict[str, str]
    is_live: bool
    shown: str
    name: str
    fps: float | None = None
    loop: bool = False
    parent_id: int = 0

    def to_json(self) -> bytes:
        """Return one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def from_json(line: bytes) -> Job:
        """Return what `to_json` wrote."""
        return Job(**json.loads(line))


def job_of(address: str, secret: str | None = None, fps: float | None = None, *, loop: bool = False) -> Job:
    """Return how to read an address.

    Args:
        address: path of a film, `rtsp://…`, `rtsps://…`, `http://…`, `https://…` or `usb:/dev/video0`.
        secret: `user:password`, for addresses with a host.
        fps: pictures per second at most.
        loop: begin a film again.

    Raises:
        BadRequest: it can never be read; the sentence holds no password.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise BadRequest(f"Frames per second are above 0, not {fps:g}.")
    if address.startswith("usb:"):
        device = address.removeprefix("usb:")
        if not device.startswith("/dev/"):
            raise BadRequest("A USB camera is named by its device, as in usb:/dev/video0.")
        return Job(device, "v4l2", {"protocol_whitelist": "file"}, True, address, Path(device).name, fps)
    scheme, separator, _ = address.partition("://")
    if not separator:
        film = Path(address).expanduser()
        # Several JPEGs in one file look like one picture; only the name tells.
        kind = "mjpeg" if film.suffix.lower() in {".mjpeg", ".mjpg"} else None
        return Job(f"file:{film}", kind, _FILM_OPTIONS, False, str(film), film.name, fps, loop)
    if scheme.lower() not in _OPTIONS:
        raise BadRequest(f"{scheme}:// is no kind of camera. Known are {', '.join(_OPTIONS)} and usb:/dev/….")
    url, shown = _with_secret(address, secret)
    return Job(url, None, _OPTIONS[scheme.lower()], True, shown, scheme.lower(), fps)


def _with_secret(address: str, secret: str | None) -> tuple[str, str]:
    """Return the address with user and password, and as it may be shown."""
    try:
        parts = urlsplit(address)
        is_complete = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_complete = False
    if not is_complete:
        raise BadRequest("The address of the camera names no host, or a port that is no number.")
    before, _, host = parts.netloc.rpartition("@")
    if secret is not None:
        user, separator, password = secret.partition(":")
        if not separator:
            raise BadRequest("The camera's secret is user:password; there is no colon in it.")
        before = f"{quote(user, safe='')}:{quote(password, safe='')}"
    bare = urlunsplit(parts._replace(netloc=host))
    whole = urlunsplit(parts._replace(netloc=f"{before}@{host}")) if before else bare
    return whole, shown_source(bare)
