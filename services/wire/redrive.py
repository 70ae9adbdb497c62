"""A dead letter's original as a record to be published again, to be judged once more (arrow x back to 1).

Key, bytes and headers are the original's, so order per camera and everything a reader derives stay. Added:

- `ce_loupeframeid`: the frame's id, which may have come from the place that the record no longer has;
- `ce_time`: when it was captured, where that was the record's own time;
- `ce_loupetry`: how often it was tried; the next dead letter counts on from there;
- `ce_loupeproject`: another model, where one is asked for.
"""

from __future__ import annotations

from services.domain.topics import FRAMES
from services.wire.dead_letter import TRIES, DeadLetter
from services.wire.frame import decode_frame
from services.wire.headers import read_headers
from services.wire.record import OutRecord

FRAME_ID, TIME, PROJECT = "ce_loupeframeid", "ce_time", "ce_loupeproject"


def encode_redrive(letter: DeadLetter, project: str | None = None) -> OutRecord:
    """Return the record to publish.

    Args:
        letter: with the original's bytes.
        project: judge it by this project's model; None leaves what the producer asked for.
    """
    original = letter.original
    ours: dict[str, str] = {TRIES: str(letter.tries)}
    if original.topic == FRAMES.name:
        ours[FRAME_ID] = letter.frame_id or str(decode_frame(original).frame_id)
        if not read_headers(original.headers).get("time"):
            ours[TIME] = original.recorded_at.isoformat()
        if project:
            ours[PROJECT] = project
    kept = tuple((name, value) for name, value in original.headers if name.lower() not in ours)
    added = tuple((name, text.encode()) for name, text in ours.items())
    return OutRecord(original.topic, original.key, original.value, added + kept)
