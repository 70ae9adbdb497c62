"""Ingest on a real Kafka: two cameras, a broker killed in mid-run, the process, the command."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import pytest

from services.adapters.broker.kafka import KafkaBrokerConsumer
from services.domain.frame import Frame
from services.domain.ledger import EntryKind, ids_of_ranges
from services.domain.topics import FRAMES, LEDGER
from services.embedded.home import free_ports
from services.embedded.settings import inherited_environment
from services.ingest.in_flight import Limits
from services.ingest.pipeline import CameraSpec, Progress, run_cameras
from services.ingest.sources import FileSource, SyntheticSource
from services.ingest.synthetic import SyntheticLine
from services.wire.frame import decode_frame
from services.wire.ledger import decode_ledger_entry
from services.wire.record import Record
from tests.poll import poll_until
from tests.servers import Servers


class Topics:
    """All that arrives on the topics of ingest, gathered as long as somebody asks."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = KafkaBrokerConsumer(
            bootstrap, topics=[FRAMES.name, LEDGER.name], group=f"test-{uuid4()}"
        )
        self._records: list[Record] = []

    def frames(self, camera: str) -> list[Frame]:
        """Return a camera's frames so far, in the order of arrival."""
        self._records += self._consumer.poll(0.2, 500)
        found = (decode_frame(record) for record in self._records if record.topic == FRAMES.name)
        return [frame for frame in found if frame.camera == camera]

    def wait_for(self, camera: str, count: int) -> list[Frame]:
        """Return a camera's frames once there are so many."""
        poll_until(lambda: len(self.frames(camera)) >= count, deadline_s=20, what=f"{count} frames")
        return self.frames(camera)

    def declared(self, camera: str, epoch: str, kind: EntryKind) -> set[object]:
        """Return the frame ids that a camera's run declared so far."""
        self._records += self._consumer.poll(0.2, 500)
        entries = (decode_ledger_entry(r.value) for r in self._records if r.topic == LEDGER.name)
        return {
            frame_id
            for entry in entries
            if (entry.camera, entry.epoch, entry.kind) == (camera, epoch, kind)
            for frame_id in ids_of_ranges(camera, epoch, entry.ranges)
        }

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()


def test_two_cameras_of_one_process_keep_their_order_and_declare_all(kafka_bootstrap: str) -> None:
    names = [f"cam-{uuid4().hex[:6]}" for _ in range(2)]
    specs = [
        CameraSpec(name, SyntheticSource(SyntheticLine(seed, (224, 224))), fps=40, count=30)
        for seed, name in enumerate(names)
    ]
    ended = run_cameras(specs, kafka_bootstrap, Event())
    topics = Topics(kafka_bootstrap)
    for name, progress in zip(names, ended, strict=True):
        assert (progress.acknowledged, progress.shed, progress.is_declared) == (30, 0, True)
        frames = topics.wait_for(name, 30)
        assert [frame.sequence for frame in frames] == list(range(30))
        assert topics.declared(name, progress.epoch, EntryKind.CAPTURED) == {f.frame_id for f in frames}
    topics.close()


def test_a_broker_killed_in_mid_run_costs_no_frame_and_doubles_none(
    own_servers: Servers, tmp_path: Path
) -> None:
    image = tmp_path / "image.jpg"
    image.write_bytes(SyntheticLine(0).jpeg(0))
    bootstrap = own_servers.addresses.kafka_bootstrap
    broker, stop, told = own_servers.start("kafka"), Event(), list[Progress]()
    spec = CameraSpec("cam-1", FileSource([image], loop=True), fps=50)
    run = Thread(target=run_cameras, args=([spec], bootstrap, stop, told.append))
    run.start()
    try:
        poll_until(lambda: told and told[-1].acknowledged > 50, deadline_s=20)
        broker.kill()
        broker.wait(10)
        # At 50 frames/s the line fills what may be on its way, and waits.
        limit = Limits().max_in_flight_frames
        poll_until(
            lambda: told[-1].captured - told[-1].acknowledged >= limit - 5, deadline_s=20, what="it is full"
        )
        assert told[-1].captured - told[-1].acknowledged <= limit
        with own_servers.running("kafka"):
            before = told[-1].acknowledged
            poll_until(lambda: told[-1].acknowledged > before + 50, deadline_s=40, what="it goes on")
            stop.set()
            run.join(30)
            assert not run.is_alive()
            ended = told[-1]
            assert (ended.captured, ended.shed, ended.is_declared) == (ended.acknowledged, 0, True)
            topics = Topics(bootstrap)
            poll_until(lambda: len(topics.frames("cam-1")) >= ended.captured, deadline_s=20)
            frames = topics.frames("cam-1")
            assert [frame.sequence for frame in frames] == list(range(ended.captured))
            ids = {frame.frame_id for frame in frames}
            poll_until(
                lambda: topics.declared("cam-1", ended.epoch, EntryKind.CAPTURED) == ids, deadline_s=10
            )
            topics.close()
    finally:
        stop.set()
        run.join(40)


def test_the_process_stops_gracefully_on_sigterm(kafka_bootstrap: str) -> None:
    camera = f"cam-{uuid4().hex[:6]}"
    (port,) = free_ports(1, seed=camera)
    environment = {
        **inherited_environment(),
        "LOUPE_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "LOUPE_CAMERA": camera,
        "LOUPE_SOURCE": "synthetic:1",
        "LOUPE_CAMERA_FPS": "20",
        "LOUPE_INGEST_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.ingest"], env=environment, stderr=-1, text=True
    )
    topics = Topics(kafka_bootstrap)
    try:
        poll_until(lambda: len(topics.frames(camera)) > 10, deadline_s=30)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, log
    frames = topics.frames(camera)
    counted = re.search(r"(\d+) captured, (\d+) acknowledged, 0 shed", log)
    assert counted, log
    poll_until(lambda: len(topics.frames(camera)) == int(counted[1]) == int(counted[2]), deadline_s=10)
    epoch = str(frames[0].epoch)
    ids = {frame.frame_id for frame in topics.frames(camera)}
    poll_until(lambda: topics.declared(camera, epoch, EntryKind.CAPTURED) == ids, deadline_s=10)
    topics.close()


def loupe(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.cli.main", *words]
    return subprocess.run(
        command,
        env={**inherited_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_publishes_a_folder_and_sums_up(kafka_bootstrap: str, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(f"not even an image {number}".encode())
    camera = f"cam-{uuid4().hex[:6]}"
    done = loupe(
        "camera", "run", str(tmp_path), "--camera", camera, "--fps", "20", "--loop", "--count", "7",
        "--project", "demo", LOUPE_KAFKA_BOOTSTRAP=kafka_bootstrap,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "7 frames" in done.stdout
    assert "7 acknowledged, 0 shed" in done.stdout
    topics = Topics(kafka_bootstrap)
    poll_until(lambda: len(topics.frames(camera)) == 7, deadline_s=10)
    assert [frame.subject for frame in topics.frames(camera)][:4] == ["0.jpg", "1.jpg", "2.jpg", "0.jpg"]
    assert {frame.project for frame in topics.frames(camera)} == {"demo"}
    topics.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "does not exist"),
        (["synthetic", "--fps", "0"], "above 0"),
        (["synthetic", "--project", "no way"], "cannot be a project's name"),
        (["synthetic"], "loupe up"),
    ],
)
def test_the_command_refuses_with_a_sentence(tmp_path: Path, words: list[str], says: str) -> None:
    done = loupe("camera", "run", *words, LOUPE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
