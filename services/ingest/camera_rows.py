"""Cameras and their states as rows of the database, and back (arrow 1). Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from services.domain.camera import Area, Camera, CameraState, OriginalPolicy, ShedPolicy

NEVER = datetime.fromtimestamp(0, UTC)
_LONGEST_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class StoredCamera:
    """A camera as configured, with what must never be shown.

    Attributes:
        secret: `user:password` of its source, or `env:NAME`.
        push_token_sha256: digest of the token that pushes to it.
        changed_at: grows with every change of any camera, whatever the clock does.
    """

    camera: Camera
    secret: str | None = field(default=None, repr=False)
    push_token_sha256: str | None = field(default=None, repr=False)
    changed_at: datetime = NEVER


@dataclass(frozen=True, slots=True)
class CameraReport:
    """How a camera does.

    Attributes:
        since: when it came into this state.
        epoch: of its run; None while it has none.
        spooled: frames that wait on disk.
        fps: captured frames per second over the last seconds.
        configured_at: `changed_at` of the configuration that this is told of.
    """

    camera: str
    state: CameraState
    message: str
    since: datetime
    epoch: str | None = None
    captured: int = 0
    acknowledged: int = 0
    shed: int = 0
    spooled: int = 0
    fps: float = 0.0
    last_frame_at: datetime | None = None
    configured_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ListedCamera:
    """A camera as people see it.

    Attributes:
        ingester: who runs it; None when nobody does.
        report: what its ingester, or the last one, told.
    """

    stored: StoredCamera
    ingester: str | None
    report: CameraReport


def report_row(report: CameraReport, now: datetime) -> dict[str, Any]:
    """Return the values of a state's row; its camera is the parameter `of_camera`."""
    row = asdict(report)
    return {
        **{name: value for name, value in row.items() if name != "camera"},
        "of_camera": report.camera,
        "state": report.state.value,
        "message": report.message[:_LONGEST_MESSAGE],
        "told_at": now,
    }


def row_of(one: StoredCamera) -> dict[str, Any]:
    """Return the values of a camera's row but for who changed it and when."""
    options = asdict(one.camera)
    name, source, is_paused = (options.pop(key) for key in ("camera", "source", "is_paused"))
    return {
        "camera": name,
        "source": source,
        "is_paused": is_paused,
        "options": options,
        "secret": one.secret,
        "push_token_sha256": one.push_token_sha256,
    }


def stored_of(row: Row[Any]) -> StoredCamera:
    """Return the camera of a row; options that this version does not know are left out.

    One row that another version wrote must not keep all other cameras from running.
    """
    options: Mapping[str, Any] = row.options
    fields = {key: value for key, value in options.items() if key in Camera.__dataclass_fields__}
    for name, kind in (("keep_original", OriginalPolicy), ("shed", ShedPolicy)):
        if fields.get(name) in set(kind):
            fields[name] = kind(fields[name])
        else:
            fields.pop(name, None)
    area = fields.pop("area", None)
    if isinstance(area, Mapping) and set(area) == set(Area.__dataclass_fields__):
        fields["area"] = Area(**area)
    camera = Camera(**{**fields, "camera": row.camera, "source": row.source, "is_paused": row.is_paused})
    return StoredCamera(camera, row.secret, row.push_token_sha256, row.changed_at)


def report_of(row: Row[Any]) -> CameraReport:
    """Return what was told of a camera, from a row whose names begin with `told_`."""
    return CameraReport(
        camera=row.told_camera,
        state=CameraState(row.told_state) if row.told_state in set(CameraState) else CameraState.FAILED,
        message=row.told_message,
        since=row.told_since,
        epoch=row.told_epoch,
        captured=row.told_captured,
        acknowledged=row.told_acknowledged,
        shed=row.told_shed,
        spooled=row.told_spooled,
        fps=row.told_fps,
        last_frame_at=row.told_last_frame_at,
        configured_at=row.told_configured_at,
    )


def listed_of(row: Row[Any], now: datetime, *, is_staffed: bool) -> ListedCamera:
    """Return a camera as people see it, from its row and its state's, whose names begin with `told_`.

    Args:
        row: of both tables.
        now: by the database's clock.
        is_staffed: some ingester runs cameras.
    """
    stored = stored_of(row)
    told = None if row.told_camera is None else report_of(row)
    if told and row.told_lease_until > now:
        return ListedCamera(stored, row.told_ingester, told)
    name, since = stored.camera.camera, stored.changed_at
    told = told or CameraReport(name, CameraState.NEW, "", since, configured_at=since)
    return ListedCamera(stored, None, _without_ingester(stored, told, is_staffed=is_staffed))


def _without_ingester(stored: StoredCamera, told: CameraReport, *, is_staffed: bool) -> CameraReport:
    """Return how a camera does that nobody holds."""
    told = replace(told, fps=0.0)
    if stored.camera.is_paused:
        return replace(told, state=CameraState.PAUSED, message="")
    if told.state is CameraState.ENDED and told.configured_at == stored.changed_at:
        return told
    if is_staffed:
        message = "No ingester has taken it: every place is taken, or none of them may run it."
        return replace(told, state=CameraState.WAITING, message=message)
    before = "" if told.state is CameraState.NEW else f" Last told: {told.state}."
    return replace(told, state=CameraState.NEW, message=f"No ingester runs.{before}")
