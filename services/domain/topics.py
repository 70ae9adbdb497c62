"""The one list of topics. An unknown name fails type checking; the README's flow table is held against it.

Retention stands here, in time and bytes, so that disk use is a decision and not an accident.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
HOUR_S = 3600
DAY_S = 24 * HOUR_S

# Largest image that travels inline. Kafka's own limits (producer, topic, broker, replica fetch,
# consumer) are this plus room for headers; larger images go by claim check (`dataref`).
INLINE_LIMIT_BYTES = 10 * MIB
# Headers of a frame are about 1 KiB and a dead letter adds its cause; a whole MiB leaves no doubt.
RECORD_LIMIT_BYTES = INLINE_LIMIT_BYTES + MIB
# Largest image that is judged at all; above the inline limit it travels by claim check.
CLAIM_LIMIT_BYTES = 100 * MIB


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic.

    Attributes:
        key: what the record key is; records of one key keep their order.
        value: what the record value is.
        arrow: number of the arrow in the flow table.
        written_in: files that write it (repository paths), for the flow table.
        read_in: files that read it.
    """

    name: str
    key: str
    value: str
    arrow: str
    written_in: tuple[str, ...]
    read_in: tuple[str, ...]
    partitions: int = 4
    retention_s: int = 7 * DAY_S
    retention_bytes: int = 1024 * MIB
    max_message_bytes: int = RECORD_LIMIT_BYTES

    @property
    def dead_letters(self) -> str:
        """Name of the topic that takes what cannot be handled."""
        return f"{self.name}.dlq"


_STREAM = "serve/stream.py"
_RESULTS = "services/results/pipeline.py"
_TRAINER = "services/trainer/pipeline.py"
_SENDER = "services/ingest/spool/sender.py"

FRAMES = Topic(
    "loupe.frames", "camera", "the encoded image", "1", (_SENDER,), (_STREAM,),
    retention_s=DAY_S, retention_bytes=4096 * MIB,
)  # fmt: skip
TRIGGERS = Topic(
    "loupe.triggers", "camera", "JSON: part_id, lot_id", "1", ("anyone",),
    ("services/ingest/sources/triggers.py",), retention_s=HOUR_S, retention_bytes=64 * MIB,
)  # fmt: skip
INSPECTIONS = Topic(
    "loupe.inspections", "camera", "protobuf Inspection", "3", (_STREAM,), (_RESULTS,),
    retention_bytes=512 * MIB,
)  # fmt: skip
EVENTS = Topic(
    "loupe.events", "camera", "CloudEvents JSON", "4", (_RESULTS, "services/ingest/camera_events.py"),
    ("anyone",), retention_bytes=512 * MIB,
)  # fmt: skip
LABELS = Topic(
    "loupe.labels", "project", "protobuf or JSON Label", "5", ("anyone",), (_TRAINER,),
    partitions=1, retention_s=30 * DAY_S, retention_bytes=256 * MIB,
)  # fmt: skip
TRAINING = Topic(
    "loupe.training", "project", "protobuf or JSON TrainingRequest", "6", ("anyone",), (_TRAINER,),
    partitions=1, retention_s=30 * DAY_S, retention_bytes=64 * MIB,
)  # fmt: skip
MODELS = Topic(
    "loupe.models", "project", "protobuf ModelAnnouncement", "6", (_TRAINER,),
    ("services/hosting/pipeline.py",), partitions=1, retention_s=30 * DAY_S, retention_bytes=64 * MIB,
)  # fmt: skip
LEDGER = Topic(
    "loupe.ledger", "camera", "protobuf LedgerEntry", "8", (_SENDER, _STREAM), (_RESULTS,),
    retention_bytes=256 * MIB,
)  # fmt: skip


def _dead_letters_of(topic: Topic, read_in: tuple[str, ...]) -> Topic:
    """Return the dead-letter topic: original key and bytes, kept as long as anyone may ask."""
    return Topic(
        topic.dead_letters, topic.key, "original bytes, cause in headers", "x", topic.read_in, read_in,
        partitions=1, retention_s=30 * DAY_S, retention_bytes=1024 * MIB,
    )  # fmt: skip


FRAMES_DLQ = _dead_letters_of(FRAMES, (_RESULTS, "loupe dlq"))
DEAD_LETTERS: tuple[Topic, ...] = (
    FRAMES_DLQ,
    *(_dead_letters_of(topic, ("loupe dlq",)) for topic in (INSPECTIONS, LABELS, TRAINING, MODELS, LEDGER)),
)

TOPICS: tuple[Topic, ...] = (
    FRAMES, TRIGGERS, INSPECTIONS, EVENTS, LABELS, TRAINING, MODELS, LEDGER, *DEAD_LETTERS,
)  # fmt: skip
