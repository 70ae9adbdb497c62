"""From what people write about a camera to its configuration, and whether that makes sense (arrow 1).

Passwords are taken out of addresses here, before anything is stored. Opens nothing and writes nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from services.domain.camera import Area, Camera, OriginalPolicy, ShedPolicy, shown_source
from services.domain.errors import BadRequest
from services.domain.project import checked_project_name
from services.ingest.camera_rows import StoredCamera
from services.ingest.settings import ENV
from services.ingest.sources.names import NameRule
from services.ingest.sources.opening import SourceKind, check_source
from services.ingest.spec import MAX_FPS

PUSH = "push:"
_LONGEST_ID, _LONGEST_SOURCE, _LONGEST_SECRET = 128, 2048, 1024
_LEAST_SIDE_PX, _LARGEST_SIDE_PX = 16, 65_535
_ADDRESS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<host>[^/?#]*)(?P<rest>.*)", re.DOTALL)
# Where a source's pictures can be shown again.
_LOOPED = frozenset({SourceKind.FOLDER, SourceKind.FILM, SourceKind.SYNTHETIC})
# Where pixels wait by themselves until the spool has room: they need not be dropped.
_PATIENT = frozenset({SourceKind.FOLDER, SourceKind.FILM, SourceKind.S3, SourceKind.PUSH})
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# What a file of cameras may say of one, and which field that is.
_FIELDS = {
    "camera": "camera", "id": "camera", "source": "source", "secret": "secret", "fps": "fps",
    "project": "project", "area": "area", "longest_side_px": "longest_side_px", "longest_side":
    "longest_side_px", "keep_original": "keep_original", "name_pattern": "name_pattern", "shed": "shed",
    "silent_after_s": "silent_after_s", "silent_after": "silent_after_s", "trigger": "is_triggered",
    "loop": "loop", "keep_files": "keeps_files", "paused": "is_paused",
}  # fmt: skip


def split_secret(source: str) -> tuple[str, str | None]:
    """Return an address without user and password, and these, as a person would type them.

    Raises:
        BadRequest: it cannot be told where the password ends; the sentence does not hold it.
    """
    found = _ADDRESS.fullmatch(source)
    if not found:
        return source, None
    secret, at, host = found["host"].rpartition("@")
    if not at:
        port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
        # `admin:12/34@host` has a port and a path, or half a password.
        if port and (not port.isdigit() or "@" in found["rest"]):
            raise BadRequest(
                "Write / ? and # of a password as %2F, %3F and %23, and @ of a path as %40, so that they "
                "can be told apart."
            )
        return source, None
    user, _, password = secret.partition(":")
    return f"{found['scheme']}{host}{found['rest']}", f"{unquote(user)}:{unquote(password)}"


def checked_camera(camera: Camera) -> Camera:
    """Return a camera whose configuration makes sense.

    Raises:
        BadRequest: it does not; the sentence says what would.
    """
    name = camera.camera
    if not name.strip() or len(name) > _LONGEST_ID or not name.isprintable() or name != name.strip():
        raise BadRequest("A camera id has 1 to 128 printable characters, and no space around it.")
    if len(camera.source) > _LONGEST_SOURCE:
        raise BadRequest(f"A source has at most {_LONGEST_SOURCE} characters.")
    kind = check_source(camera.source)
    if camera.fps is not None and not 0 < camera.fps <= MAX_FPS:
        raise BadRequest(f"Frames per second are above 0 and at most {MAX_FPS:g}, not {camera.fps:g}.")
    if camera.silent_after_s is not None and not 0 < camera.silent_after_s < 1e9:
        raise BadRequest(f"Silence begins after more than 0 seconds, not {camera.silent_after_s:g}.")
    side_px = camera.longest_side_px
    if side_px is not None and not _LEAST_SIDE_PX <= side_px <= _LARGEST_SIDE_PX:
        raise BadRequest(
            f"The longest side has {_LEAST_SIDE_PX} to {_LARGEST_SIDE_PX} pixels, not {side_px}."
        )
    if camera.project is not None:
        checked_project_name(camera.project)
    if camera.name_pattern is not None:
        NameRule(camera.name_pattern)
    if camera.loop and kind not in _LOOPED:
        raise BadRequest(
            f"Only a folder, a film and the synthetic line can loop, not {shown_source(camera.source)}."
        )
    if camera.is_triggered and kind is SourceKind.PUSH:
        raise BadRequest("Who pushes a picture decides when; such a camera waits for no trigger.")
    return camera


def parse_area(text: str) -> Area:
    """Return a region of interest from `left,top,width,height`, shares of the picture.

    Raises:
        BadRequest: it is none.
    """
    parts = text.split(",")
    try:
        left, top, width, height = (float(part) for part in parts)
    except ValueError:
        raise BadRequest(
            f"An area is left,top,width,height as shares of the picture, as in 0.1,0,0.8,1, not {text!r}."
        ) from None
    whole = 1.0 + 1e-9
    is_inside = left >= 0 and top >= 0 and left + width <= whole and top + height <= whole
    if not (is_inside and width > 0 and height > 0):
        raise BadRequest(f"The area {text} does not lie in the picture, which goes from 0 to 1.")
    return Area(left, top, width, height)


def stored_camera(values: Mapping[str, Any], base: StoredCamera | None = None) -> StoredCamera:
    """Return a camera from the fields that people gave, over those of `base`.

    Args:
        values: fields of `Camera`, and `secret`; a relative path is taken from the current directory. A new
            camera without `shed` gets the one that suits its source.
        base: what it is now; None: a new camera.

    Raises:
        BadRequest: it makes no sense.
    """
    fields = dict(values)
    secret = fields.pop("secret", None)
    source = str(fields.get("source", base.camera.source if base else ""))
    source, inside = split_secret(source.strip())
    if inside and secret:
        raise BadRequest("The source has a user and password already; give the secret once.")
    if inside and inside.startswith(ENV):
        raise BadRequest("A user called env cannot be told from a variable; give --secret env:NAME instead.")
    secret = _checked_secret(secret or inside)
    fields["source"] = _absolute(source)
    if isinstance(area := fields.get("area"), str):
        fields["area"] = parse_area(area)
    if base is None:
        fields.setdefault("shed", _usual_shed(fields))
    camera = checked_camera(replace(base.camera, **fields) if base else Camera(**fields))
    token = base.push_token_sha256 if base and camera.source == PUSH else None
    # A new address is another device, which has another password.
    kept = base.secret if base and base.camera.source == camera.source else None
    return StoredCamera(camera, secret or kept, token)


def _usual_shed(fields: Mapping[str, Any]) -> ShedPolicy:
    """Return what a new camera does while the spool is full, where nobody says it."""
    if fields.get("is_triggered") or check_source(fields["source"]) not in _PATIENT:
        return ShedPolicy.DROP_OLDEST
    return ShedPolicy.BLOCK


def read_cameras(file: Path) -> list[StoredCamera]:
    """Return the cameras of a YAML, JSON or CSV file.

    Raises:
        BadRequest: it cannot be read; the sentence names the first camera that makes no sense.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or 'no text'}."
        ) from error
    found = []
    for number, values in enumerate(_records(file, text), 1):
        try:
            found.append(stored_camera(_fields_of(values)))
        except BadRequest as error:
            named = values.get("camera") or values.get("id") or "without id"
            raise BadRequest(f"Camera {number} ({named}) of {file.name}: {error.message}") from error
    if not found:
        raise BadRequest(f"{file} holds no camera.")
    return found


def new_token() -> tuple[str, str]:
    """Return a token that pushes to a camera, and the digest that is stored of it."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()


def _checked_secret(secret: str | None) -> str | None:
    if secret is None:
        return None
    if len(secret) > _LONGEST_SECRET or not secret.isprintable():
        raise BadRequest(f"A secret has at most {_LONGEST_SECRET} printable characters.")
    if secret.startswith(ENV) and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", secret.removeprefix(ENV)):
        raise BadRequest("After env: stands the name of a variable, as in env:PRESS_1_LOGIN.")
    return secret


def _absolute(source: str) -> str:
    """Return a path as the ingester finds it, which runs in another folder; other sources as they are."""
    if not source or re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", source) or source == SourceKind.SYNTHETIC:
        return source
    return str(Path(source).expanduser().absolute())


def _records(file: Path, text: str) -> Sequence[Mapping[str, Any]]:
    import yaml

    if file.suffix.lower() == ".csv":
        rows = csv.DictReader(io.StringIO(text))
        return [{key: value for key, value in row.items() if value not in ("", None)} for row in rows]
    try:
        found = json.loads(text) if file.suffix.lower() == ".json" else yaml.safe_load(text)
    except ValueError as error:
        raise BadRequest(f"{file} is no JSON: {error}.") from error
    except yaml.YAMLError as error:
        raise BadRequest(f"{file} is no YAML: {' '.join(str(error).split())}.") from error
    if isinstance(found, Mapping) and "cameras" in found:
        found = found["cameras"]
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise BadRequest(f"{file} is no list of cameras, each with an id and a source.")
    return found


def _fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [str(name) for name in values if name not in _FIELDS]
    if unknown:
        raise BadRequest(f"{unknown[0]!r} is nothing that a camera has; known are {', '.join(_FIELDS)}.")
    fields = {_FIELDS[name]: _typed(name, value) for name, value in values.items() if value is not None}
    for name in ("camera", "source"):
        if name not in fields:
            raise BadRequest(f"It has no {name}.")
    return fields


def _typed(name: str, value: Any) -> Any:
    """Return a value as the field wants it, whether it was text (CSV) or typed (JSON, YAML)."""
    field = _FIELDS[name]
    try:
        if field in ("fps", "silent_after_s"):
            return float(value)
        if field == "longest_side_px":
            return int(value)
        if field == "keep_original":
            return OriginalPolicy(str(value).lower())
        if field == "shed":
            return ShedPolicy(str(value).lower())
        if field in ("is_triggered", "loop", "keeps_files", "is_paused"):
            return value if isinstance(value, bool) else _WORDS[str(value).strip().lower()]
    except (ValueError, TypeError, KeyError):
        raise BadRequest(f"{value!r} is no {name.replace('_', ' ')}.") from None
    if field == "area" and isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
