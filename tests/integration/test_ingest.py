"""Ingest on a real Kafka: cameras side by side, a broker that stalls and dies under load, the command."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import pytest

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.domain.camera import ShedPolicy
from services.domain.ledger import ShedReason
from services.domain.topics import MIB
from services.embedded.settings import inherited_environment
from services.ingest.in_flight import Limits
from services.ingest.pipeline import CameraSpec, Ingester, Progress, run_cameras
from services.ingest.sources import FileSource, SyntheticSource
from services.ingest.spool import Sender, Spool
from services.ingest.synthetic import SyntheticLine
from tests.integration.arrivals import Arrivals, in_order
from tests.poll import poll_until
from tests.servers import Servers

# Why each policy lets frames go; a sampling camera that is full all the same drops the newest.
REASONS = {
    ShedPolicy.BLOCK: set[ShedReason](),
    ShedPolicy.DROP_OLDEST: {ShedReason.DROPPED_OLDEST, ShedReason.DROPPED_NEWEST},
    ShedPolicy.DROP_NEWEST: {ShedReason.DROPPED_NEWEST},
    ShedPolicy.SAMPLE: {ShedReason.SAMPLED, ShedReason.DROPPED_NEWEST},
}


def test_two_cameras_of_one_process_keep_their_order_and_declare_all(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    names = [f"cam-{uuid4().hex[:6]}" for _ in range(2)]
    specs = [
        CameraSpec(name, SyntheticSource(SyntheticLine(seed, (224, 224))), fps=40, count=30)
        for seed, name in enumerate(names)
    ]
    ended = run_cameras(specs, kafka_bootstrap, Event(), spool_folder=tmp_path)
    topics = Arrivals(kafka_bootstrap)
    for name, progress in zip(names, ended, strict=True):
        assert (progress.acknowledged, progress.shed, progress.is_declared) == (30, 0, True)
        frames, shed = topics.wait_until_balanced(name, 30)
        assert [frame.sequence for frame in frames] == list(range(30))
        assert shed == []
    topics.close()


class Plant:
    """A camera of each policy on one small spool, filming until told to stop."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        image = folder / "image.jpg"
        # A tenth of what a camera may have in the spool.
        image.write_bytes(SyntheticLine(0).jpeg(0).ljust(100_000, b"\0"))
        clock = SystemClock()
        self.stop = Event()
        self._spool = Spool(folder / "spool", clock=clock, max_bytes=4 * MIB, reserve_bytes=0)
        # Shorter than the stall, so that frames are given up, and sent again.
        limits = Limits(max_in_flight_frames=8, delivery_timeout_s=6)
        self._sender = Sender(
            self._spool,
            lambda: KafkaBrokerProducer(bootstrap, delivery_timeout_s=limits.delivery_timeout_s),
            clock,
            limits=limits,
        )
        self.ingesters = {
            policy: Ingester(
                CameraSpec(policy.value, FileSource([image], loop=True), fps=20, shed=policy),
                self._spool,
                clock,
            )
            for policy in ShedPolicy
        }
        self._threads = [Thread(target=one.run, args=(self.stop,)) for one in self.ingesters.values()]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Film and send."""
        self._sender.start()
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in self._threads:
                thread.join(20)
            self._sender.stop()
            self._spool.close()

    def end(self) -> dict[ShedPolicy, Progress]:
        """Stop filming, and return how far the cameras are once everything is sent."""
        self.stop.set()
        for thread in self._threads:
            thread.join(20)
        assert self._sender.flush(60)
        return {policy: one.progress() for policy, one in self.ingesters.items()}

    def acknowledged(self) -> int:
        """Return how many frames of the slowest camera Kafka has."""
        return min(one.progress().acknowledged for one in self.ingesters.values())

    def are_full(self) -> bool:
        """Tell whether the camera that waits waits, and all others shed."""
        return all(
            one.progress().is_shedding
            if policy is not ShedPolicy.BLOCK
            else one.progress().spooled_frames > 8
            for policy, one in self.ingesters.items()
        )


def test_a_broker_that_stalls_and_dies_under_load_changes_delays_and_never_the_equation(
    own_servers: Servers, tmp_path: Path
) -> None:
    bootstrap = own_servers.addresses.kafka_bootstrap
    broker = own_servers.start("kafka")
    plant = Plant(bootstrap, tmp_path)
    with plant.running():
        poll_until(lambda: plant.acknowledged() > 10, deadline_s=30, what="all cameras send")
        broker.send_signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        poll_until(plant.are_full, deadline_s=20, what="the spool is full")
        poll_until(lambda: time.monotonic() - stopped_s > 10, deadline_s=20)
        broker.send_signal(signal.SIGCONT)
        before = plant.acknowledged()
        poll_until(lambda: plant.acknowledged() > before + 30, deadline_s=40, what="it goes on")
        broker.kill()
        broker.wait(10)
        poll_until(plant.are_full, deadline_s=20, what="the spool is full again")
        with own_servers.running("kafka"):
            before = plant.acknowledged()
            poll_until(lambda: plant.acknowledged() > before + 30, deadline_s=60, what="it goes on")
            ended = plant.end()
            topics = Arrivals(bootstrap)
            for policy, progress in ended.items():
                frames, shed = topics.wait_until_balanced(policy.value, progress.captured)
                ids = {frame.frame_id for frame in frames}
                assert in_order(frames)
                assert not ids & set(shed)
                assert (progress.captured, progress.shed) == (len(ids) + len(shed), len(shed))
                assert progress.acknowledged == len(ids)
                assert set(progress.shed_by_reason) <= REASONS[policy]
                assert bool(shed) == (policy is not ShedPolicy.BLOCK)
            topics.close()


def test_a_run_without_a_broker_leaves_its_frames_to_the_next_one(
    own_servers: Servers, tmp_path: Path
) -> None:
    bootstrap, image = own_servers.addresses.kafka_bootstrap, tmp_path / "image.jpg"
    image.write_bytes(SyntheticLine(0).jpeg(0))
    broker, stop, told = own_servers.start("kafka"), Event(), list[Progress]()
    spec = CameraSpec("cam-1", FileSource([image], loop=True), fps=50)
    run = Thread(
        target=run_cameras,
        args=([spec], bootstrap, stop, told.append),
        kwargs={"spool_folder": tmp_path / "spool", "limits": Limits(stop_timeout_s=1)},
    )
    run.start()
    try:
        poll_until(lambda: told and told[-1].acknowledged > 50, deadline_s=20)
        broker.kill()
        broker.wait(10)
        before = told[-1].captured
        poll_until(lambda: told[-1].captured > before + 100, deadline_s=20, what="it goes on filming")
    finally:
        stop.set()
        run.join(40)
    assert not told[-1].is_declared
    with own_servers.running("kafka"):
        left: list[int] = []
        (ended,) = run_cameras(
            [CameraSpec("cam-1", FileSource([image]))],
            bootstrap,
            Event(),
            spool_folder=tmp_path / "spool",
            on_leftovers=lambda found: left.extend(one.frames for one in found),
        )
        assert left == [told[-1].spooled_frames]
        assert (ended.captured, ended.acknowledged, ended.is_declared) == (1, 1, True)
        topics = Arrivals(bootstrap)
        frames, shed = topics.wait_until_balanced("cam-1", told[-1].captured + 1)
        topics.close()
    assert shed == []
    assert in_order(frames)
    assert len({frame.frame_id for frame in frames}) == told[-1].captured + 1


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
        "--project", "demo", LOUPE_KAFKA_BOOTSTRAP=kafka_bootstrap, LOUPE_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "7 frames" in done.stdout
    assert "7 acknowledged, 0 shed" in done.stdout
    topics = Arrivals(kafka_bootstrap)
    frames, _ = topics.wait_until_balanced(camera, 7)
    assert [frame.subject for frame in frames][:4] == ["0.jpg", "1.jpg", "2.jpg", "0.jpg"]
    assert {frame.project for frame in frames} == {"demo"}
    topics.close()


def test_the_command_killed_and_started_again_sends_what_was_left_first(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    camera = f"cam-{uuid4().hex[:6]}"
    command = [sys.executable, "-m", "services.cli.main", "camera", "run", "synthetic:1", "--camera", camera]
    environment = {
        **inherited_environment(), "LOUPE_KAFKA_BOOTSTRAP": kafka_bootstrap, "LOUPE_HOME": str(tmp_path),
    }  # fmt: skip
    process = subprocess.Popen([*command, "--fps", "50"], env=environment, stdout=-3, text=True)
    topics = Arrivals(kafka_bootstrap)
    try:
        poll_until(lambda: len(topics.frames(camera)) > 20, deadline_s=40)
    finally:
        process.kill()
        process.wait(10)
    process = subprocess.Popen([*command, "--fps", "20"], env=environment, stdout=-1, text=True)
    try:
        poll_until(lambda: len({frame.epoch for frame in topics.frames(camera)}) == 2, deadline_s=40)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, said
    frames, shed = topics.wait_until_balanced(camera, 21)
    topics.close()
    assert shed == []
    assert in_order(frames)


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
