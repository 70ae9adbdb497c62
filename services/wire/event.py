"""Events for people and machines: CloudEvents in structured JSON on `loupe.events` (arrow 4)."""

from __future__ import annotations

from cloudevents.core.bindings.kafka import to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from services.domain.inspection import Inspection, event_id_of, inspection_id_of
from services.domain.topics import EVENTS
from services.wire.record import OutRecord

ANOMALY_TYPE = "io.loupe.anomaly.v1"
VERDICT_TYPE = "io.loupe.verdict.v1"
_FORMAT = JSONFormat()


def event_type_of(inspection: Inspection) -> str:
    """Return the event type: anomalies have their own, so that a consumer can filter by header-less type."""
    return ANOMALY_TYPE if inspection.is_anomalous else VERDICT_TYPE


def encode_event(inspection: Inspection) -> OutRecord:
    """Return the event that tells of an inspection; its id is equal for every redelivery."""
    event_type = event_type_of(inspection)
    inspection_id = inspection_id_of(inspection.frame_id, inspection.role, inspection.run)
    attributes: dict[str, object] = {
        "id": str(event_id_of(inspection_id, event_type)),
        "source": f"/projects/{inspection.project}",
        "type": event_type,
        "time": inspection.judged_at,
        "subject": str(inspection.frame_id),
        "datacontenttype": "application/json",
    }
    if inspection.traceparent:
        attributes["traceparent"] = inspection.traceparent
    event = CloudEvent(attributes, {**data_of(inspection), "inspection_id": str(inspection_id)})
    message = to_structured(event, _FORMAT)
    return OutRecord(EVENTS.name, inspection.camera.encode(), message.value, tuple(message.headers.items()))


def data_of(inspection: Inspection) -> dict[str, object]:
    """Return what is told of an inspection, as JSON values; also what `loupe inspect --json` builds on."""
    return {
        "frame_id": str(inspection.frame_id),
        "camera": inspection.camera,
        "source": inspection.subject,
        "project": inspection.project,
        "model_version": inspection.model_version,
        "is_anomalous": inspection.is_anomalous,
        "is_uncertain": inspection.is_uncertain,
        "confidence": inspection.confidence,
        "score": inspection.score,
        "threshold": inspection.threshold,
        "captured_at": inspection.captured_at.isoformat(),
        "judged_at": inspection.judged_at.isoformat(),
        "part_id": inspection.part_id,
        "lot_id": inspection.lot_id,
        "image_uri": inspection.image.uri if inspection.image else None,
        "regions": [
            {
                "left_ratio": region.left_ratio,
                "top_ratio": region.top_ratio,
                "width_ratio": region.width_ratio,
                "height_ratio": region.height_ratio,
                "area_ratio": region.area_ratio,
                "mean_score": region.mean_score,
                "anomaly_type": region.anomaly_type,
            }
            for region in inspection.regions
        ],
    }
