"""Talk to Loupe with confluent-kafka (pip install confluent-kafka): publish, trigger, label, listen.

eval "$(loupe env)"                # tells the address of Kafka as LOUPE_KAFKA_BOOTSTRAP
python python_confluent_kafka.py publish cam-1 photo.jpg        # with an id, a time and a part id
python python_confluent_kafka.py publish-bare cam-1 photo.jpg   # the image and nothing else
python python_confluent_kafka.py trigger cam-1 P-000123 L-42
python python_confluent_kafka.py label caps FRAME_ID anomaly scratch
python python_confluent_kafka.py events my-program
"""

import json
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from confluent_kafka import Consumer, KafkaException, Producer

BOOTSTRAP = os.environ["LOUPE_KAFKA_BOOTSTRAP"]
# An image of up to 10 MiB and its headers; larger images go by reference (see README.md).
RECORD_LIMIT_BYTES = 11 << 20
# Frame ids are made in this name space, so that you can name a frame without asking anybody.
FRAME_NAMESPACE = uuid.UUID("6f6b3c0e-0f0a-5b0e-9d6f-6c6f75706531")


def send(topic, key, value, headers=()):
    """Send one record and return when every in-sync broker has it, or raise."""
    producer = Producer({
        "bootstrap.servers": BOOTSTRAP,
        "acks": "all",
        "enable.idempotence": True,  # a retry inside the client makes no second record
        "message.max.bytes": RECORD_LIMIT_BYTES,
    })  # fmt: skip
    failed = []

    def note(error, _):
        if error is not None:
            failed.append(error)

    producer.produce(topic, key=key.encode(), value=value, headers=list(headers), on_delivery=note)
    if producer.flush(30) or failed:
        raise KafkaException(*failed)


def publish(camera, path):
    """Publish an image with CloudEvents headers."""
    file = Path(path)
    taken = file.stat().st_mtime_ns
    # The same for every try: sent again, it is still one frame and gets one verdict.
    event_id = f"{file.name}/{taken}"
    headers = {
        "ce_specversion": "1.0",
        "ce_type": "io.loupe.frame.v1",
        "ce_id": event_id,
        "ce_source": quote(camera, safe="/:-_."),
        "ce_time": datetime.fromtimestamp(taken / 1e9, UTC).isoformat(),
        "ce_subject": quote(file.name),
        "ce_partid": "P-000123",
        "content-type": "image/jpeg",
    }
    send("loupe.frames", camera, file.read_bytes(), [(name, text.encode()) for name, text in headers.items()])
    print("frame", uuid.uuid5(FRAME_NAMESPACE, f"event\x1f{camera}\x1f{event_id}"))


def publish_bare(camera, path):
    """Publish an image without headers; its place in Kafka is its id, so send it once."""
    send("loupe.frames", camera, Path(path).read_bytes())


def trigger(camera, part_id, lot_id):
    """Ask a triggered camera for a picture of a part."""
    send("loupe.triggers", camera, json.dumps({"part_id": part_id, "lot_id": lot_id}).encode())


def label(project, frame_id, verdict, *types):
    """Say what a frame shows: normal or anomaly, and anomaly types."""
    said = {
        "project": project,
        "frame_id": frame_id,
        "verdict": verdict,
        "classes": types,
        "author": "line-3",
        "labelled_at": datetime.now(UTC).isoformat(),  # the later label of a frame wins
    }
    send("loupe.labels", project, json.dumps(said).encode())


def events(group):
    """Print verdicts as they come, from where this group was when it ended."""
    consumer = Consumer({
        "bootstrap.servers": BOOTSTRAP,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })  # fmt: skip
    consumer.subscribe(["loupe.events"])
    seen = set()  # an event may come twice, with an equal id; a real program remembers ids for a while
    while True:
        record = consumer.poll(1.0)
        if record is None:
            continue
        if record.error():
            raise KafkaException(record.error())
        event = json.loads(record.value())
        if event["id"] not in seen and event["type"] in ("io.loupe.anomaly.v1", "io.loupe.verdict.v1"):
            seen.add(event["id"])
            data = event["data"]
            print(data["camera"], data["frame_id"], data["is_anomalous"], data["score"], flush=True)
        consumer.commit(record, asynchronous=False)  # only now: what was not handled comes again


COMMANDS = {
    "publish": publish,
    "publish-bare": publish_bare,
    "trigger": trigger,
    "label": label,
    "events": events,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
