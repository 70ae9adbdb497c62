"""The example programs of `docs/clients`, each run as it stands against a real broker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.reader import KafkaTopicReader
from services.domain.inspection import Inspection
from services.domain.label import Verdict
from services.domain.topics import FRAMES, INLINE_LIMIT_BYTES, LABELS, TRIGGERS
from services.embedded.jars import fetch_jar
from services.embedded.parts import Parts
from services.embedded.settings import EmbeddedSettings, inherited_environment
from services.wire.event import encode_event
from services.wire.frame import decode_frame
from services.wire.label import decode_label
from services.wire.record import Record
from services.wire.trigger import decode_trigger

pytestmark = pytest.mark.real

CLIENTS = Path(__file__).parents[2] / "docs" / "clients"
# The Java of the stack has no compiler; Eclipse's is one jar.
COMPILER = (
    "org.eclipse.jdt:ecj:3.44.0", "14c46ddc2e511c46c998da728f6a80f13a689c920f3832402f7ad150f6a6188d",
)  # fmt: skip
AT = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
TIMEOUT_S = 60


@dataclass
class Client:
    """One example program, and the topics it writes."""

    command: Sequence[str]
    environment: dict[str, str]
    bootstrap: str
    camera: str

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def records(self, topic: str, key: str | None = None) -> list[Record]:
        reader = KafkaTopicReader(self.bootstrap)
        try:
            return [
                record
                for number, span in reader.spans(topic).items()
                for record in reader.records_at(topic, number, span)
                if record.key == (key or self.camera).encode()
            ]
        finally:
            reader.close()


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Compile the Java example and return how to start it."""
    folder = tmp_path_factory.mktemp("java")
    parts = Parts(EmbeddedSettings().parts_dir)
    fetch_jar(*COMPILER, folder)
    (compiler,) = folder.glob("*.jar")
    kafka, source = parts.kafka_class_path, CLIENTS / "java" / "LoupeClient.java"
    compiled = subprocess.run(
        [parts.java, "-jar", compiler, "-17", "-cp", kafka, "-d", folder, source],
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert compiled.returncode == 0, compiled.stderr
    return str(parts.java), "-cp", f"{folder}:{kafka}", "LoupeClient"


@pytest.fixture(params=["python_kafka_python", "python_aiokafka", "python_confluent_kafka", "java"])
def client(request: pytest.FixtureRequest, kafka_bootstrap: str) -> Client:
    name: str = request.param
    command = (
        request.getfixturevalue("java") if name == "java" else (sys.executable, str(CLIENTS / f"{name}.py"))
    )
    environment = inherited_environment() | {"LOUPE_KAFKA_BOOTSTRAP": kafka_bootstrap}
    return Client(command, environment, kafka_bootstrap, f"line 3/{name}-{uuid4().hex[:8]}")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    # The largest that travels inline: settings of any size that is too small are noticed.
    path = tmp_path / "caps 0107.jpg"
    path.write_bytes(b"\xff\xd8\xff" + bytes(range(256)) * (INLINE_LIMIT_BYTES // 256))
    with path.open("r+b") as file:
        file.truncate(INLINE_LIMIT_BYTES)
    return path


def test_a_published_picture_arrives_whole_and_twice_is_one_frame(client: Client, photo: Path) -> None:
    told = {client.run("publish", client.camera, str(photo)).strip() for _ in range(2)}
    first, second = (decode_frame(record) for record in client.records(FRAMES.name))
    assert first.frame_id == second.frame_id
    assert told == {f"frame {first.frame_id}"}
    assert first.image == photo.read_bytes()
    assert (first.camera, first.subject, first.part_id) == (client.camera, photo.name, "P-000123")
    taken = datetime.fromtimestamp(photo.stat().st_mtime, UTC)
    assert abs((first.captured_at - taken).total_seconds()) < 0.001


def test_a_bare_picture_is_a_frame_of_its_key(client: Client, photo: Path) -> None:
    client.run("publish-bare", client.camera, str(photo))
    (record,) = client.records(FRAMES.name)
    assert record.headers == ()
    frame = decode_frame(record)
    assert (frame.camera, frame.image) == (client.camera, photo.read_bytes())


def test_a_label_is_understood(client: Client) -> None:
    project, frame_id = f"caps-{uuid4().hex[:8]}", uuid4()
    client.run("label", project, str(frame_id), "anomaly")
    (record,) = client.records(LABELS.name, project)
    label = decode_label(record)
    assert (label.frame_id, label.verdict, label.author) == (frame_id, Verdict.ANOMALY, "line-3")
    assert abs((label.labelled_at - record.recorded_at).total_seconds()) < TIMEOUT_S


def test_a_trigger_names_part_and_lot(client: Client) -> None:
    client.run("trigger", client.camera, "P-1", "L-2")
    (record,) = client.records(TRIGGERS.name)
    wish = decode_trigger(record)
    assert (wish.camera, wish.part_id, wish.lot_id) == (client.camera, "P-1", "L-2")


def test_events_are_printed_as_they_come(client: Client) -> None:
    frame_id = uuid4()
    producer = KafkaBrokerProducer(client.bootstrap)
    try:
        producer.send(encode_event(inspection(client.camera, frame_id))).result(30)
    finally:
        producer.close()
    with subprocess.Popen(
        [*client.command, "events", uuid4().hex], env=client.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = next(one for one in lines_of(process) if str(frame_id) in one)
        finally:
            process.kill()
    assert client.camera in line
    assert "3.5" in line


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield what is printed; the test's own time limit ends a program that prints nothing."""
    assert process.stdout is not None
    yield from process.stdout


def inspection(camera: str, frame_id: UUID) -> Inspection:
    return Inspection(frame_id, camera, "caps", "v1", AT, AT, True, 0.97, 3.5, 2.5)
