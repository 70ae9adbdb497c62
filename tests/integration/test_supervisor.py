"""The ingest process over the cameras of a database, with a real Kafka and without one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from services.adapters.broker.reader import KafkaTopicReader, read_up_to
from services.adapters.database import migrate, open_engine
from services.domain.camera import Camera
from services.domain.frame import Frame
from services.domain.topics import EVENTS, FRAMES
from services.embedded.home import free_ports
from services.embedded.settings import inherited_environment
from services.ingest.camera_rows import StoredCamera
from services.ingest.camera_store import CameraStore
from services.ingest.configuration import new_token
from services.ingest.synthetic import SyntheticLine
from services.wire.frame import decode_frame
from tests.poll import poll_until
from tests.servers import Servers

# What `LOUPE_INGEST_STOP_S` promises, and what the processes of a busy machine need beside it.
STOP_WITHIN_S = 15.0
# Nothing listens on TCP's port 9 of a test's machine.
NO_BROKER = "127.0.0.1:9"


@dataclass
class Site:
    """A database with cameras, a spool, and an ingest process now and then."""

    folder: Path

    def __post_init__(self) -> None:
        self.url = f"sqlite:///{self.folder / 'loupe.db'}"
        migrate(self.url)
        self.engine = open_engine(self.url)
        self.store = CameraStore(self.engine)
        (self.port,) = free_ports(1, seed=str(self.folder))
        self.mark = uuid4().hex[:8]

    @contextmanager
    def ingester(self, bootstrap: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the process until it is healthy or has ended, and end it afterwards if it has not."""
        environment = inherited_environment() | {
            "LOUPE_HOME": str(self.folder),
            "LOUPE_DATABASE_URL": self.url,
            "LOUPE_KAFKA_BOOTSTRAP": bootstrap,
            "LOUPE_INGEST_PORT": str(self.port),
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            **settings,
        }
        with (self.folder / "ingest.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.ingest"], env=environment, stdout=log, stderr=log
            )
        try:
            poll_until(
                lambda: process.poll() is not None or self.is_healthy(), deadline_s=60, what="the door opens"
            )
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    def is_healthy(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        return (self.folder / "ingest.log").read_text()[-3000:]

    def states(self) -> Counter[str]:
        return Counter(one.report.state.value for one in self.store.listed())

    def captured(self) -> int:
        return sum(one.report.captured for one in self.store.listed())

    def frames(self, bootstrap: str) -> list[Frame]:
        """Return what is on `loupe.frames` of this site's cameras, whose ids end with its mark."""
        reader = KafkaTopicReader(bootstrap)
        try:
            records = read_up_to(reader, FRAMES.name, reader.spans(FRAMES.name))
            frames = [decode_frame(record) for record in records]
        finally:
            reader.close()
        return [frame for frame in frames if frame.camera.endswith(self.mark)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.engine.dispose()


def stop(process: subprocess.Popen[bytes]) -> float:
    """Ask a process to end; return how long that took."""
    begun_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    return time.monotonic() - begun_s


@pytest.mark.timeout(120)
def test_cameras_of_the_database_are_published_and_a_stop_is_in_time(
    site: Site, kafka_bootstrap: str, tmp_path: Path
) -> None:
    inbox, name = tmp_path / "inbox", f"inbox-{site.mark}"
    inbox.mkdir()
    image = SyntheticLine(1).part(0).jpeg()
    token, digest = new_token()
    site.store.add(
        [
            StoredCamera(Camera(name, str(inbox))),
            StoredCamera(Camera(f"syn-{site.mark}", "synthetic:3", fps=5)),
            StoredCamera(Camera(f"gone-{site.mark}", str(tmp_path / "gone"))),
            StoredCamera(Camera(f"plc-{site.mark}", "push:"), None, digest),
        ],
        "ann",
    )
    with site.ingester(kafka_bootstrap) as process:
        poll_until(
            lambda: site.states() == {"running": 3, "source-gone": 1}, deadline_s=30, what="named states"
        )
        (inbox / "one.jpg").write_bytes(image)
        url = f"http://127.0.0.1:{site.port}/v1/cameras/plc-{site.mark}/frames"
        headers = {"Authorization": f"Bearer {token}", "X-Loupe-Part-Id": "p7", "ce-id": "42"}
        answers = [
            httpx.post(url, content=image, headers=headers, timeout=30, trust_env=False) for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [202, 202], answers[0].text
        # The same event a second time is the same frame.
        assert answers[0].json() == answers[1].json()
        poll_until(lambda: (inbox / "done").is_dir() and any((inbox / "done").iterdir()), deadline_s=30)
        took_s = stop(process)
    assert took_s < STOP_WITHIN_S
    frames = site.frames(kafka_bootstrap)
    (pushed,) = [frame for frame in frames if frame.camera.startswith("plc")]
    assert (str(pushed.frame_id), pushed.part_id, pushed.image) == (
        answers[0].json()["frames"][0]["frame_id"], "p7", image,
    )  # fmt: skip
    assert [frame.subject for frame in frames if frame.camera == name] == ["one.jpg"]
    sequences = [frame.sequence for frame in frames if frame.camera.startswith("syn")]
    assert sequences == list(range(len(sequences)))
    assert len(frames) == site.captured()
    assert {one.ingester for one in site.store.listed()} == {None}
    reader = KafkaTopicReader(kafka_bootstrap)
    told = [record.value for record in read_up_to(reader, EVENTS.name, reader.spans(EVENTS.name))]
    reader.close()
    assert sum(f"gone-{site.mark}".encode() in value and b"source-gone" in value for value in told) == 1


@pytest.mark.timeout(120)
def test_without_kafka_frames_wait_and_the_next_start_sends_them(site: Site, kafka_bootstrap: str) -> None:
    site.store.add([StoredCamera(Camera(f"syn-{site.mark}", "synthetic:3", fps=10))], "ann")
    with site.ingester(NO_BROKER) as process:
        poll_until(lambda: site.states() == {"spooling": 1}, deadline_s=30, what="spooling is told")
        assert stop(process) < STOP_WITHIN_S
    captured = site.captured()
    assert captured >= 10
    site.store.pause([f"syn-{site.mark}"], "ann", is_paused=True)
    with site.ingester(kafka_bootstrap) as process:
        poll_until(lambda: len(site.frames(kafka_bootstrap)) == captured, deadline_s=30, what="all arrive")
        stop(process)
    assert [frame.sequence for frame in site.frames(kafka_bootstrap)] == list(range(captured))


@pytest.mark.timeout(300)
def test_ten_thousand_cameras_of_which_most_are_wrong_have_named_states(
    site: Site, kafka_bootstrap: str, tmp_path: Path
) -> None:
    inboxes = [tmp_path / f"inbox-{number}" for number in range(50)]
    for inbox in inboxes:
        inbox.mkdir()
    cameras = [
        *(Camera(f"closed-{n:05}-{site.mark}", f"rtsp://127.0.0.1:{1 + n % 9}/x") for n in range(4900)),
        *(Camera(f"gone-{n:05}-{site.mark}", f"/nowhere/{n}") for n in range(4900)),
        *(Camera(f"inbox-{n:05}-{site.mark}", str(inbox)) for n, inbox in enumerate(inboxes)),
        *(Camera(f"push-{n:05}-{site.mark}", "push:") for n in range(145)),
        *(Camera(f"syn-{n:05}-{site.mark}", f"synthetic:{n}", fps=1) for n in range(5)),
    ]
    site.store.add([StoredCamera(camera) for camera in cameras], "ann")
    with site.ingester(kafka_bootstrap) as process:
        wanted = {"unreachable": 4900, "source-gone": 4900, "running": 200}
        # About 50 s on two idle cores; the good ones have the last names, so they come last.
        poll_until(lambda: site.states() == wanted, deadline_s=200, every_s=1, what="named states")
        running = psutil.Process(process.pid)
        before, begun_s = running.cpu_times(), time.monotonic()
        poll_until(lambda: site.captured() >= 50, deadline_s=60, every_s=1, what="the good ones film")
        after = running.cpu_times()
        share = (after.user + after.system - before.user - before.system) / (time.monotonic() - begun_s)
        memory_mb = running.memory_full_info().pss / 1e6
        assert share < 0.9, f"{share:.2f} of a core"
        assert memory_mb < 400, f"{memory_mb:.0f} MB"
        assert stop(process) < STOP_WITHIN_S


def test_a_broker_that_takes_no_large_images_ends_the_process_with_the_numbers(
    own_servers: Servers, site: Site
) -> None:
    with own_servers.running("kafka"):
        bootstrap = own_servers.addresses.kafka_bootstrap
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        wanted = {"max.message.bytes": "1000000"}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, FRAMES.name, configs=wanted)])
        admin.close()
        site.store.add([StoredCamera(Camera(f"line-{site.mark}", "synthetic", fps=5))], "ann")
        with site.ingester(bootstrap) as process:
            assert process.wait(60) == 1
    assert "max.message.bytes of the topic loupe.frames 1000000" in site.log()
