"""The results process on real servers: what it stores and tells, killed, stopped, without neighbours."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.reader import KafkaTopicReader, read_up_to
from services.adapters.cache.live import LiveView
from services.adapters.cache.redis import RedisCache
from services.adapters.clock import SystemClock
from services.adapters.database import migrate, open_engine, reading
from services.adapters.database.tables import inspections
from services.domain.frame import Frame
from services.domain.topics import EVENTS, INSPECTIONS
from services.embedded.home import free_ports
from services.embedded.settings import inherited_environment
from services.results.ledger import prove
from services.wire.frame import decode_frame, encode_frame
from services.wire.inspection import encode_inspection
from services.wire.ledger import encode_ledger_entry
from services.wire.record import OutRecord, Record
from tests.poll import poll_until
from tests.servers import Servers
from tests.unit.results.builders import captured, frame, letter, shed_by_stream, verdict

LOUPE = Path(sys.executable).with_name("loupe")


@dataclass
class Cluster:
    """Addresses of real servers, and what tests do with them."""

    bootstrap: str
    redis_url: str
    database_url: str
    folder: Path

    def __post_init__(self) -> None:
        migrate(self.database_url)
        self.engine = open_engine(self.database_url)
        (self.port,) = free_ports(1, seed=str(self.folder))

    @property
    def environment(self) -> dict[str, str]:
        return {
            **inherited_environment(),
            "LOUPE_HOME": str(self.folder),
            "LOUPE_KAFKA_BOOTSTRAP": self.bootstrap,
            "LOUPE_REDIS_URL": self.redis_url,
            "LOUPE_DATABASE_URL": self.database_url,
            "LOUPE_RESULTS_PORT": str(self.port),
            "LOUPE_RESULTS_GAUGES_EVERY_S": "0.2",
        }

    @contextmanager
    def results(self, end: signal.Signals = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
        """Run the process; `end` ends it.

        One that was killed stays a member of its groups for a session of 10 s, and its successor waits.
        """
        with (self.folder / "results.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.results"], env=self.environment, stderr=log
            )
            try:
                yield process
            finally:
                process.send_signal(end)
                process.wait(20)

    def page(self, name: str) -> str:
        """Return a page of the process, empty when it does not answer or is not well."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except (URLError, OSError):
            return ""

    def metric(self, line: str) -> float | None:
        """Return the value of a metric by its name and labels as they stand on the page."""
        found = [text for text in self.page("metrics").splitlines() if text.startswith(f"{line} ")]
        return float(found[0].rsplit(" ", 1)[1]) if found else None

    def wait_until_healthy(self) -> None:
        poll_until(lambda: self.page("healthz"), deadline_s=40, what=self.log)

    @property
    def log(self) -> str:
        return (self.folder / "results.log").read_text()[-3000:]

    def send(self, *records: OutRecord) -> list[Record]:
        """Publish and return the records as a reader sees them (without their time)."""
        producer = KafkaBrokerProducer(self.bootstrap)
        places = [delivery.result(20) for delivery in [producer.send(one) for one in records]]
        producer.close()
        return [
            Record(place.topic, place.partition, place.offset, one.key, one.value, one.headers)
            for place, one in zip(places, records, strict=True)
        ]

    def film(self, camera: str, count: int) -> list[Frame]:
        """Publish frames as an ingester does, and declare them captured."""
        now = datetime.now(UTC)
        frames = [replace(frame(n, camera), captured_at=now) for n in range(count)]
        seen = [decode_frame(record) for record in self.send(*map(encode_frame, frames))]
        self.send(encode_ledger_entry(captured(0, count - 1, camera)))
        return seen

    def judge(self, frames: Sequence[Frame], **changes: object) -> None:
        """Publish verdicts as the stream does."""
        self.send(*(encode_inspection(verdict(one, **changes)) for one in frames))

    def stored(self, camera: str) -> int:
        query = select(func.count()).select_from(inspections).where(inspections.c.camera == camera)
        with reading(self.engine) as connection:
            return connection.execute(query).scalar_one()

    def event_ids(self, camera: str) -> set[str]:
        reader = KafkaTopicReader(self.bootstrap)
        told = [json.loads(one.value) for one in read_up_to(reader, EVENTS.name, reader.spans(EVENTS.name))]
        reader.close()
        return {one["id"] for one in told if one["data"]["camera"] == camera}

    def is_balanced(self, camera: str) -> bool:
        reader = KafkaTopicReader(self.bootstrap)
        try:
            return prove(self.engine, reader, camera)[camera].is_balanced
        finally:
            reader.close()

    def loupe(self, *words: str, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [LOUPE, *words],
            env={**self.environment, "COLUMNS": "200", **(environment or {})},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout


@pytest.fixture
def camera() -> str:
    return f"cam-{uuid4().hex[:8]}"


@pytest.fixture
def cluster(tmp_path: Path, kafka_bootstrap: str, redis_url: str) -> Iterator[Cluster]:
    made = Cluster(kafka_bootstrap, redis_url, f"sqlite:///{tmp_path / 'loupe.db'}", tmp_path)
    yield made
    made.engine.dispose()


@pytest.fixture
def cluster_on_postgres(cluster: Cluster, postgres_url: str) -> Iterator[Cluster]:
    made = replace(cluster, database_url=postgres_url)
    yield made
    made.engine.dispose()


@pytest.fixture
def own_servers() -> Iterator[Servers]:
    """Return a starter of servers that a test may kill."""
    with tempfile.TemporaryDirectory(prefix="loupe-results-", ignore_cleanup_errors=True) as folder:
        servers = Servers(Path(folder).resolve())
        try:
            yield servers
        finally:
            servers.close()


@pytest.mark.real
@pytest.mark.parametrize("where", ["cluster", "cluster_on_postgres"])
def test_verdicts_are_stored_told_counted_shown_and_proved(
    request: pytest.FixtureRequest, where: str, camera: str
) -> None:
    cluster: Cluster = request.getfixturevalue(where)
    frames = cluster.film(camera, 12)
    with cluster.results():
        cluster.wait_until_healthy()
        cluster.judge(frames[:9])
        cluster.judge(frames[9:10], is_anomalous=True, score=0.9)
        cluster.send(letter(frames[10]), encode_ledger_entry(shed_by_stream(frames[11])))
        poll_until(lambda: cluster.is_balanced(camera), deadline_s=30, what=cluster.log)
        normal = f'camera="{camera}",model_version="v1",project="parts",verdict="normal"'
        assert cluster.metric(f"loupe_inspections_total{{{normal}}}") == 9
        assert cluster.metric(f'loupe_captured_total{{camera="{camera}"}}') == 12
        poll_until(
            lambda: cluster.metric(f'loupe_ledger_gap_frames{{camera="{camera}"}}') == 0, deadline_s=10
        )
    assert len(cluster.event_ids(camera)) == 10
    cache = RedisCache(cluster.redis_url)
    view = LiveView(cache, SystemClock())
    assert view.counts()[camera]["judged"] == 10
    assert view.last()[camera]["is_anomalous"] is True
    cache.close()


def test_the_commands_read_what_happened(cluster: Cluster, camera: str, tmp_path: Path) -> None:
    frames = cluster.film(camera, 4)
    with cluster.results():
        cluster.judge(frames[:2])
        cluster.judge(frames[2:3], is_anomalous=True, score=0.9, part_id="part-7")
        (bad,) = cluster.send(letter(frames[3]))
        found = json.loads(cluster.loupe("ledger", "--json", "--camera", camera, "--wait", "30"))
        (lost,) = cluster.film(f"{camera}-lost", 1)
    assert found == {
        "balanced": True,
        "cameras": {
            camera: {
                "captured": 4, "judged": 3, "quarantined": 1, "shed": 0,
                "missing": [], "unnamed": 0, "shed_by_reason": {},
            }
        },
    }  # fmt: skip
    unbalanced = cluster.loupe("ledger", "--camera", f"{camera}-lost", code=1)
    assert str(lost.frame_id) in unbalanced
    told = [json.loads(line) for line in cluster.loupe("events", "--json", "--since", "10m").splitlines()]
    assert len([one for one in told if one["data"]["camera"] == camera]) == 3
    lines = cluster.loupe("events", "--anomalies").splitlines()
    (anomaly,) = [line for line in lines if camera in line]
    assert "score 0.900" in anomaly
    assert "part part-7" in anomaly
    position = f"loupe.frames.dlq:{bad.partition}:{bad.offset}"
    listed = cluster.loupe("dlq", "list", "--topic", "loupe.frames", "--json").splitlines()
    assert position in {json.loads(line)["position"] for line in listed}
    for which in (position, str(frames[3].frame_id)):
        shown = cluster.loupe("dlq", "show", which, "--save", str(tmp_path / "bad.jpg"))
        assert "Not an image." in shown
        assert "what to do" in shown
        assert (tmp_path / "bad.jpg").read_bytes() == frames[3].image
    cluster.loupe("dlq", "show", "nothing", code=2)


def test_killed_again_and_again_it_loses_and_doubles_nothing(cluster: Cluster, camera: str) -> None:
    frames = cluster.film(camera, 180)
    for start in (0, 60):
        before = cluster.stored(camera)
        with cluster.results(signal.SIGKILL):
            cluster.judge(frames[start : start + 60])
            # Killed in mid-batch: as soon as the first of these verdicts are there.
            poll_until(lambda: cluster.stored(camera) > before, deadline_s=40, every_s=0.001)  # noqa: B023
    with cluster.results():
        cluster.judge(frames[120:])
        poll_until(lambda: cluster.is_balanced(camera), deadline_s=40, what=cluster.log)
        assert cluster.stored(camera) == 180
        poll_until(lambda: len(cluster.event_ids(camera)) == 180, deadline_s=20)


def test_stopped_it_leaves_at_once_with_everything_committed(cluster: Cluster, camera: str) -> None:
    frames = cluster.film(camera, 20)
    with cluster.results() as process:
        cluster.judge(frames)
        poll_until(lambda: cluster.stored(camera) == 20, deadline_s=40, what=cluster.log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    reader = KafkaTopicReader(cluster.bootstrap)
    spans, committed = reader.spans(INSPECTIONS.name), reader.committed(INSPECTIONS.name, "loupe-results")
    reader.close()
    assert {n: span.stop for n, span in spans.items() if span} == {n: committed[n] for n in spans if spans[n]}


def test_garbage_goes_aside_and_a_flood_of_it_stops_the_process(own_servers: Servers, camera: str) -> None:
    cluster = private(own_servers)
    garbage = OutRecord(INSPECTIONS.name, camera.encode(), b"\xff\xfe", (("ce_id", b"\xff"),))
    with own_servers.running("kafka"), cluster.results() as process:
        frames = cluster.film(camera, 10)
        cluster.judge(frames[:5])
        cluster.send(garbage)
        cluster.judge(frames[5:])
        poll_until(lambda: cluster.is_balanced(camera), deadline_s=40, what=cluster.log)
        labels = 'cause="MalformedRecord",topic="loupe.inspections"'
        assert cluster.metric(f"loupe_dead_letters_total{{{labels}}}") == 1
        cluster.send(*[garbage] * 100)
        assert process.wait(20) == 1
    assert "were refused" in cluster.log


def test_it_survives_a_killed_redis_and_a_killed_broker(own_servers: Servers, camera: str) -> None:
    cluster = private(own_servers)
    with own_servers.running("kafka") as kafka, own_servers.running("redis") as redis:
        frames = cluster.film(camera, 90)
        with cluster.results():
            cluster.wait_until_healthy()
            cluster.judge(frames[:30])
            poll_until(lambda: cluster.stored(camera) == 30, deadline_s=30, what=cluster.log)
            redis.kill()
            cluster.judge(frames[30:60])
            poll_until(lambda: cluster.stored(camera) == 60, deadline_s=30, what=cluster.log)
            kafka.kill()
            kafka.wait(10)
            poll_until(lambda: not cluster.page("healthz"), deadline_s=20, what="not healthy")
            with own_servers.running("kafka"):
                cluster.judge(frames[60:])
                poll_until(lambda: cluster.is_balanced(camera), deadline_s=60, what=cluster.log)
                poll_until(lambda: len(cluster.event_ids(camera)) == 90, deadline_s=30)
                poll_until(lambda: cluster.page("healthz"), deadline_s=30, what="healthy again")
    assert cluster.stored(camera) == 90


def private(servers: Servers) -> Cluster:
    """Return a cluster on servers of its own."""
    at = servers.addresses
    return Cluster(at.kafka_bootstrap, at.redis_url, f"sqlite:///{at.home}/loupe.db", at.home)
