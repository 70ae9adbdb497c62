"""A home: the folder of all state of one stack, its short-lived runtime folder, and its `state.json`.

Ports and credentials are made once and kept; a port that somebody else took meanwhile is replaced.
Starts nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from uuid import uuid4

from services.domain.errors import BadSettings

# Unix socket paths end at 107 bytes and Ray adds about 75 of its own below its folder. Not TMPDIR: `down`
# must find the same folder from another shell.
_RUNTIME_ROOT = Path("/tmp")  # noqa: S108 - the folder below is 0700 and its owner is checked
# Below Linux's ephemeral range (32768-60999), so that no outgoing connection takes a port of ours.
_FIRST_PORT, _LAST_PORT = 20000, 32000

PORT_NAMES = (
    "kafka", "kafka_controller", "redis", "s3", "triton_grpc", "triton_http", "triton_metrics",
    "ray", "ray_client", "ray_dashboard", "ray_node_manager", "ray_object_manager", "ray_agent",
    "ray_agent_grpc", "ray_metrics", "ray_dashboard_metrics", "ray_runtime_env",
    "gateway", "results", "trainer", "hosting", "ingest", "api",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Home:
    """Where one stack lives.

    Attributes:
        path: absolute folder, `LOUPE_HOME`.
    """

    path: Path

    @property
    def stack_id(self) -> str:
        """Mark of every process of this stack: a digest of the home's path."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:12]

    @property
    def runtime(self) -> Path:
        """Short folder for Unix sockets and Ray's session; `down` removes it."""
        return _RUNTIME_ROOT / f"loupe-{os.getuid()}-{self.stack_id}"

    @property
    def logs(self) -> Path:
        """One log file per part."""
        return self.path / "logs"

    @property
    def config(self) -> Path:
        """Generated configuration of the parts."""
        return self.path / "config"

    @property
    def database_url(self) -> str:
        """The SQLite file that the processes, the CLI and the API share."""
        return f"sqlite:///{self.path / 'loupe.db'}"

    @property
    def objects(self) -> Path:
        """Folder that the S3 server serves; buckets are its folders."""
        return self.path / "s3"

    @property
    def model_repository(self) -> Path:
        """Triton's model repository."""
        return self.path / "triton" / "models"

    @property
    def ray_token(self) -> Path:
        """File with the token that Ray asks for."""
        return self.path / "ray.token"

    @property
    def supervisor_socket(self) -> Path:
        """Unix socket of `supervisord`."""
        return self.runtime / "supervisor.sock"

    def make(self) -> None:
        """Create the folders, readable by their owner alone.

        Raises:
            BadSettings: the home's path or its runtime folder cannot be used.
        """
        if "," in str(self.path):
            raise BadSettings(f"LOUPE_HOME must have no comma in its path, which Kafka splits: {self.path}")
        for folder in (self.path, self.logs, self.config, self.objects, self.model_repository):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.runtime.mkdir(exist_ok=True, mode=0o700)
        if self.runtime.stat().st_uid != os.getuid() or self.runtime.is_symlink():
            raise BadSettings(f"{self.runtime} belongs to somebody else; set LOUPE_HOME to another folder")

    def remove_runtime(self) -> None:
        """Remove sockets and Ray's session."""
        shutil.rmtree(self.runtime, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home alone; blocks while another `up` or `down` works on it."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True, slots=True)
class State:
    """What a home remembers between runs; holds secrets, so its file is 0600.

    Attributes:
        start_s: seconds from start to ready, per part, of the last `up`.
    """

    ports: Mapping[str, int]
    units: int
    kafka_cluster_id: str
    redis_password: str
    s3_key: str
    s3_secret: str
    start_s: Mapping[str, float] = field(default_factory=dict)


def load_state(home: Home) -> State | None:
    """Return the home's state, None before its first `up`."""
    try:
        return State(**json.loads((home.path / "state.json").read_text()))
    except FileNotFoundError:
        return None


def save_state(home: Home, state: State) -> None:
    """Write the state in one step, readable by its owner alone."""
    _write_private(home.path / "state.json", json.dumps(asdict(state), indent=1))


def prepare_state(home: Home, *, units: int, is_running: bool) -> State:
    """Return the home's state, made or brought up to date, and saved.

    Args:
        home: exists.
        units: inference units wanted; those of a running stack stay as they are.
        is_running: the stack runs, so its ports are taken by itself.
    """
    known = load_state(home) or State(
        ports={},
        units=units,
        kafka_cluster_id=new_cluster_id(),
        redis_password=secrets.token_hex(16),
        s3_key=f"loupe-{secrets.token_hex(4)}",
        s3_secret=secrets.token_hex(20),
    )
    ports = _usable_ports(home, known.ports, keep=is_running)
    known = (
        replace(known, ports=ports) if is_running else replace(known, ports=ports, units=units, start_s={})
    )
    save_state(home, known)
    if not home.ray_token.exists():
        _write_private(home.ray_token, secrets.token_hex(32))
    return known


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def _usable_ports(home: Home, known: Mapping[str, int], *, keep: bool) -> dict[str, int]:
    """Return a free port for each name: the known one if it is still free (or always, with `keep`).

    New ones are sought from a place that depends on the home, so that two homes started at the
    same moment do not race for the same ports.
    """
    candidates = _free_from(home.stack_id, frozenset(known.values()))
    return {
        name: known[name] if name in known and (keep or is_free(known[name])) else next(candidates)
        for name in PORT_NAMES
    }


def free_ports(count: int, *, seed: str) -> list[int]:
    """Return free ports; another seed looks elsewhere first."""
    return list(islice(_free_from(seed, frozenset()), count))


def _free_from(seed: str, taken: frozenset[int]) -> Iterator[int]:
    span = _LAST_PORT - _FIRST_PORT
    start = int(hashlib.sha256(seed.encode()).hexdigest(), 16) % span
    ports = (_FIRST_PORT + (start + step) % span for step in range(span))
    return (port for port in ports if port not in taken and is_free(port))


def new_cluster_id() -> str:
    """Return a fresh id in the form that Kafka gives its clusters.

    Never with a dash in front, one of 64 otherwise: Kafka's tools would take it for an option.
    """
    return cluster_id_of(uuid4().bytes)


def cluster_id_of(random: bytes) -> str:
    """Return the id that 16 random bytes stand for."""
    text = urlsafe_b64encode(random).decode().rstrip("=")
    return f"A{text[1:]}" if text.startswith("-") else text


def is_free(port: int) -> bool:
    """Tell whether nothing listens on the port, on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
