"""The hosting process on a real Ray head with the real `serve.app`, broker, object store and Triton."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.database import migrate, open_engine
from services.adapters.object_store.store import s3_store
from services.domain.errors import ModelUnavailable
from services.domain.hosting import HostingStatus
from services.domain.model_version import ModelAnnouncement
from services.embedded.addresses import process_environment
from services.embedded.settings import inherited_environment
from services.hosting.serve_api import RestServeApi
from services.hosting.store import HostedProject, HostingStore
from services.trainer.fit import fit_model
from services.trainer.registry import Registry
from services.wire.model import encode_announcement
from tests.poll import poll_until
from tests.servers import S3Access, Servers, TritonAccess
from tests.unit.trainer.models import promoted
from tests.unit.trainer.pictures import pictures

pytestmark = pytest.mark.real

# Alone, Ray Serve starts in 5 s and the model loads in 2 s; all of it on two cores that others use.
HOSTED_DEADLINE_S = 120.0


class Bench:
    """Hosting's neighbours, with one inference unit."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        at = servers.addresses
        self._servers = servers
        self._folder = folder
        migrate(at.database_url)
        engine = open_engine(at.database_url)
        self.registry = Registry(engine, s3_store(at.s3_endpoint, at.s3_key, at.s3_secret, at.s3_region))
        self.store = HostingStore(engine)
        self.serve = RestServeApi(at.ray_dashboard_url, at.ray_token_path)
        self.producer = KafkaBrokerProducer(at.kafka_bootstrap)

    @contextmanager
    def hosting(self) -> Iterator[psutil.Popen]:
        """Run the process until the end of the block; it ends well."""
        environment = inherited_environment() | process_environment(
            self._servers.addresses, self._servers.state
        )
        process = psutil.Popen([sys.executable, "-m", "services.hosting"], env=environment)
        try:
            yield process
        finally:
            process.terminate()
            status = process.wait(10)
        assert status == 0

    def page(self, path: str) -> bytes:
        with suppress(OSError), urlopen(self._url(path), timeout=1) as page:
            found: bytes = page.read()
            return found
        return b""

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._servers.state.ports['hosting']}{path}"

    def model(self, project: str, version: str) -> ModelAnnouncement:
        """Fit, register and promote a version, without announcing it."""
        fitted = fit_model(pictures(6), project=project, version=version, out_dir=self._folder / project)
        return promoted(self.registry, fitted.folder, fitted.manifest)

    def announce(self, said: ModelAnnouncement) -> None:
        self.producer.send(encode_announcement(said)).result(10)

    def wait_until(self, project: str, version: str, status: HostingStatus) -> HostedProject:
        def has_come() -> HostedProject | None:
            for one in self.store.hosted():
                if (one.hosting.project, one.hosting.version, one.status) == (project, version, status):
                    return one
            return None

        found = poll_until(
            has_come, deadline_s=HOSTED_DEADLINE_S, every_s=0.2, what=f"{project} {version} {status}"
        )
        assert found is not None
        return found

    def replicas(self, application: str) -> list[int]:
        """Return the process ids of an application's running replicas."""
        with suppress(ModelUnavailable):
            deployments = self.serve.details()["applications"][application]["deployments"].values()
            running = [r for one in deployments for r in one["replicas"] if r["state"] == "RUNNING"]
            return sorted(replica["pid"] for replica in running)
        return []


@pytest.fixture
def bench(
    servers: Servers,
    kafka_bootstrap: str,
    s3_access: S3Access,
    triton_access: TritonAccess,
    tmp_path: Path,
) -> Iterator[Bench]:
    bench = Bench(servers, tmp_path)
    yield bench
    bench.producer.close()
    bench.serve.close()


@pytest.mark.timeout(480)
def test_models_are_hosted_swapped_refused_and_hosted_again_on_a_new_head(
    bench: Bench, servers: Servers
) -> None:
    bench.model("plates", "v1")  # while nobody listened
    with bench.hosting() as process:
        poll_until(lambda: bench.page("/healthz"), deadline_s=30, what="healthy while Ray is away")
        with servers.running("ray") as ray:
            bench.wait_until("plates", "v1", HostingStatus.HOSTED)
            units, streams = bench.replicas("inspector-plates"), bench.replicas("stream")
            assert len(units) == len(streams) == 1
            assert len(bench.replicas("gateway")) == 1
            assert b'loupe_inference_units{project="plates",state="running"} 1.0' in bench.page("/metrics")

            bench.announce(bench.model("plates", "v2"))
            bench.wait_until("plates", "v2", HostingStatus.HOSTED)
            assert bench.replicas("inspector-plates") == units
            assert bench.replicas("stream") == streams

            bench.announce(bench.model("bottles", "v1"))
            refused = bench.wait_until("bottles", "v1", HostingStatus.HOSTING_FAILED)
            assert refused.message == "Needs 1 inference units; 0 of the 1 that the cluster offers are free."
            assert bench.replicas("inspector-plates") == units

            ray.kill()
            ray.wait(10)
            bench.wait_until("plates", "v2", HostingStatus.STARTING_HOSTING)
        with servers.running("ray"):
            bench.wait_until("plates", "v2", HostingStatus.HOSTED)
            assert bench.replicas("inspector-plates") != units
            assert process.memory_full_info().pss < 150e6
