"""How a camera does, as an event for people and machines: CloudEvents JSON on `loupe.events` (arrow 4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote
from uuid import uuid5

from cloudevents.core.bindings.kafka import to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from services.domain.camera import CameraState
from services.domain.frame import FRAME_NAMESPACE
from services.domain.topics import EVENTS
from services.wire.record import OutRecord

CAMERA_TYPE = "io.loupe.camera.v1"
_FORMAT = JSONFormat()


@dataclass(frozen=True, slots=True)
class CameraChange:
    """A camera came into a state.

    Attributes:
        message: a plain sentence, without any password.
        since: aware UTC time at which it came into `state`.
        previous: the state before.
        ingester: who runs it.
    """

    camera: str
    state: CameraState
    message: str
    since: datetime
    previous: CameraState
    ingester: str


def encode_camera_event(change: CameraChange) -> OutRecord:
    """Return the event that tells of a change; its id is equal however often it is sent."""
    since = change.since.isoformat()
    name = "\x1f".join(("camera", change.camera, change.state, change.previous, since))
    event = CloudEvent(
        {
            "id": str(uuid5(FRAME_NAMESPACE, name)),
            "source": f"/cameras/{quote(change.camera, safe='')}",
            "type": CAMERA_TYPE,
            "time": change.since,
            "subject": quote(change.camera, safe="/:-_. "),
            "datacontenttype": "application/json",
        },
        {
            "camera": change.camera,
            "state": change.state.value,
            "message": change.message,
            "since": since,
            "previous": change.previous.value,
            "ingester": change.ingester,
        },
    )
    message = to_structured(event, _FORMAT)
    return OutRecord(EVENTS.name, change.camera.encode(), message.value, tuple(message.headers.items()))
