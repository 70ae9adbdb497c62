"""Every process of the one-machine stack, as data: command, probe, what must be ready before it.

To add a process of ours, add a line to `OUR_PROCESSES`; it runs `python -m services.<name>` and answers
`GET /healthz` on its `LOUPE_<NAME>_PORT`. Starts nothing itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path

from services.embedded import contents, probes
from services.embedded.addresses import StackAddresses, addresses_of
from services.embedded.archive import format_storage
from services.embedded.configs import (
    KAFKA_JVM_FLAGS,
    LOGBACK,
    S3_JVM_FLAGS,
    kafka_properties,
    redis_conf,
    s3proxy_properties,
    write_if_changed,
)
from services.embedded.home import Home, State
from services.embedded.parts import Parts, part_versions
from services.embedded.python_check import shared_library_folders

# Pseudo step between parts: the tables exist.
DATABASE = "database"
# Processes of ours and what each needs before it starts.
OUR_PROCESSES: Mapping[str, tuple[str, ...]] = {
    "ingest": ("kafka", "s3", DATABASE),
    "results": ("kafka", "redis", DATABASE),
    "trainer": ("kafka", "s3", DATABASE),
    "hosting": ("kafka", "s3", "ray", "triton", DATABASE),
}
# Longer than `LOUPE_INGEST_STOP_S`, in which the ingester's cameras end and Kafka gets their last frames.
_STOP_WAIT_S: Mapping[str, int] = {"ingest": 15}
_USUAL_STOP_WAIT_S = 5
# Ray starts as many idle workers as it has CPUs; ours ask for inference units and for no CPU.
_RAY_CPUS = 2
# Frames above 1 MB go by reference: two of the largest that are judged (100 MiB) fit, and a few batches of
# inline ones. It is memory only once it is used.
_RAY_OBJECT_STORE_BYTES = 256 << 20


def _nothing() -> None:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process.

    Attributes:
        is_ready: cheap probe; False while the server cannot work yet.
        port: the port that people want to know.
        after: names that must be ready before this starts.
        prepare: writes its configuration; called before it starts.
        finish: fills it (topics, buckets) once it is ready, before those that wait for it start.
        stop_wait_s: from SIGTERM to SIGKILL, which always goes to the whole process group.
        is_group_stopped: SIGTERM goes to the group too; else to the main process, which ends the others.
        deadline_s: it has failed to start when it is not ready after this.
    """

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool]
    port: int
    version: str
    after: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = _nothing
    finish: Callable[[], None] = _nothing
    stop_wait_s: int = _USUAL_STOP_WAIT_S
    is_group_stopped: bool = True
    # A part that has not died is only slow; on two cores busy with other work Ray took 75 s.
    deadline_s: float = 180.0


def programs_of(home: Home, state: State, parts: Parts) -> dict[str, Program]:
    """Return all programs of a home, in the order in which people like to read them."""
    addresses = addresses_of(home, state, parts)
    makers = (kafka_program, redis_program, s3_program, triton_program, ray_program)
    servers = [make(home, state, parts, addresses) for make in makers]
    ours = [_our_program(name, after, state) for name, after in OUR_PROCESSES.items()]
    return {program.name: program for program in (*servers, *ours)}


def kafka_program(home: Home, state: State, parts: Parts, addresses: StackAddresses) -> Program:
    """Return Apache Kafka as a single broker without ZooKeeper."""
    folder = home.path / "kafka"
    properties = home.config / "kafka.properties"

    def prepare() -> None:
        write_if_changed(
            properties,
            kafka_properties(
                port=state.ports["kafka"], controller_port=state.ports["kafka_controller"], log_folder=folder
            ),
        )
        if not (folder / "meta.properties").exists():
            format_storage(parts.java, parts.kafka_class_path, properties, state.kafka_cluster_id)

    return Program(
        name="kafka",
        command=(
            str(parts.java),
            *KAFKA_JVM_FLAGS,
            f"-XX:AOTCache={parts.kafka_archive}",
            "-cp",
            parts.kafka_class_path,
            "kafka.Kafka",
            str(properties),
        ),
        is_ready=partial(probes.kafka_answers, addresses.kafka_bootstrap),
        port=state.ports["kafka"],
        version=part_versions()["kafka"],
        prepare=prepare,
        finish=partial(contents.create_topics, addresses.kafka_bootstrap),
    )


def redis_program(home: Home, state: State, parts: Parts, _: StackAddresses) -> Program:
    """Return Redis as a cache."""
    conf = home.config / "redis.conf"
    text = redis_conf(port=state.ports["redis"], password=state.redis_password, folder=home.path)
    return Program(
        name="redis",
        command=(str(parts.redis_server), str(conf)),
        is_ready=partial(probes.redis_answers, state.ports["redis"], state.redis_password),
        port=state.ports["redis"],
        version=part_versions()["redis"],
        prepare=lambda: _write(conf, text),
    )


def s3_program(home: Home, state: State, parts: Parts, addresses: StackAddresses) -> Program:
    """Return the S3 server over the home's folder of objects."""
    properties, logback = home.config / "s3proxy.properties", home.config / "logback.xml"
    access = (addresses.s3_endpoint, addresses.s3_key, addresses.s3_secret, addresses.s3_region)

    def prepare() -> None:
        home.objects.mkdir(parents=True, exist_ok=True)
        _write(logback, LOGBACK)
        _write(
            properties,
            s3proxy_properties(
                port=state.ports["s3"], key=state.s3_key, secret=state.s3_secret, folder=home.objects
            ),
        )

    return Program(
        name="s3",
        command=(
            str(parts.java),
            *S3_JVM_FLAGS,
            f"-Dlogback.configurationFile={logback}",
            "-cp",
            parts.s3_class_path,
            "org.gaul.s3proxy.Main",
            "--properties",
            str(properties),
        ),
        is_ready=partial(probes.s3_answers, *access),
        port=state.ports["s3"],
        version=part_versions()["s3"],
        prepare=prepare,
        finish=partial(contents.create_buckets, *access),
    )


def triton_program(home: Home, state: State, parts: Parts, addresses: StackAddresses) -> Program:
    """Return tritonserver with explicit model control and the Python backend's own environment."""
    ports, prefix = state.ports, shared_memory_prefix(home)
    # The Python backend puts its paths into a shell's command line without quotes, and waits for ever when
    # that fails; these two have no spaces whatever the folders are called.
    server, repository = home.runtime / "tritonserver", home.runtime / "models"

    def prepare() -> None:
        _link(server, parts.tritonserver)
        _link(repository, home.model_repository)

    python_backend = {
        "shm-default-byte-size": 4 << 20,
        "shm-growth-byte-size": 4 << 20,
        "stub-timeout-seconds": 60,
        "shm-region-prefix-name": prefix,
    }
    return Program(
        name="triton",
        command=_launched(
            home, "triton", prefix,
            str(server / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={server / 'backends'}", f"--cache-directory={server / 'caches'}",
            "--model-control-mode=explicit", "--exit-on-error=false",
            "--allow-gpu-metrics=false", "--allow-cpu-metrics=true",
            "--http-address=127.0.0.1", f"--http-port={ports['triton_http']}",
            "--grpc-address=127.0.0.1", f"--grpc-port={ports['triton_grpc']}",
            "--metrics-address=127.0.0.1", f"--metrics-port={ports['triton_metrics']}",
            *(f"--backend-config=python,{key}={value}" for key, value in python_backend.items()),
        ),
        environment={
            # The stub finds its Python by PATH and its shared library here. One thread per model
            # instance: units are the parallelism.
            "PATH": f"{parts.backend_environment / 'bin'}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": ":".join(shared_library_folders()),
            "OMP_NUM_THREADS": "1",
        },
        prepare=prepare,
        is_ready=partial(probes.http_answers, f"{addresses.triton_http}/v2/health/ready"),
        port=ports["triton_grpc"],
        version=part_versions()["triton"],
        # It waits 3-5 s for connections to end; its models hold no state.
        stop_wait_s=2,
    )  # fmt: skip


def ray_program(home: Home, state: State, _: Parts, addresses: StackAddresses) -> Program:
    """Return Ray's head node, a part of its own that no process of ours owns."""
    ports = state.ports
    return Program(
        name="ray",
        command=_launched(
            home, "ray", "",
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
            "--node-ip-address=127.0.0.1", f"--port={ports['ray']}",
            f"--ray-client-server-port={ports['ray_client']}",
            f"--node-manager-port={ports['ray_node_manager']}",
            f"--object-manager-port={ports['ray_object_manager']}",
            f"--dashboard-agent-listen-port={ports['ray_agent']}",
            f"--dashboard-agent-grpc-port={ports['ray_agent_grpc']}",
            f"--metrics-export-port={ports['ray_metrics']}",
            f"--runtime-env-agent-port={ports['ray_runtime_env']}",
            "--min-worker-port=0", "--max-worker-port=0",
            f"--num-cpus={_RAY_CPUS}", f"--object-store-memory={_RAY_OBJECT_STORE_BYTES}",
            f"--resources={json.dumps({'inference_unit': state.units})}",
            "--include-dashboard=true", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={ports['ray_dashboard']}",
            "--disable-usage-stats", "--no-monitor", "--include-log-monitor=false",
            "--log-style=record", "--log-color=false", f"--temp-dir={home.runtime / 'ray'}",
        ),
        environment={
            # Ray renames its processes, which overwrites the mark that `down` looks for.
            "SPT_NOENV": "1",
            # One fixed port for all Rays of a machine otherwise.
            "DASHBOARD_METRIC_PORT": str(ports["ray_dashboard_metrics"]),
            "RAY_ROTATION_MAX_BYTES": str(10 << 20),
            "RAY_ROTATION_BACKUP_COUNT": "1",
        },
        # People find Ray's own logs, replicas' among them, beside the others while it runs.
        prepare=partial(_link, home.logs / "ray-session", home.runtime / "ray" / "session_latest" / "logs"),
        is_ready=partial(probes.ray_answers, addresses.ray_dashboard_url, home.ray_token),
        port=ports["ray_dashboard"],
        version=version_of("ray"),
        # Signalled together, its processes wait for each other until they are killed (5 s, not 3).
        is_group_stopped=False,
    )  # fmt: skip


def _our_program(name: str, after: tuple[str, ...], state: State) -> Program:
    port = state.ports[name]
    return Program(
        name=name,
        command=(sys.executable, "-m", f"services.{name}"),
        is_ready=partial(probes.http_answers, f"http://127.0.0.1:{port}/healthz"),
        port=port,
        version=version_of("loupe-inspect"),
        after=after,
        stop_wait_s=_STOP_WAIT_S.get(name, _USUAL_STOP_WAIT_S),
    )


def shared_memory_prefix(home: Home) -> str:
    """Return how the names of Triton's shared memory regions of this home begin."""
    return f"loupe_{home.stack_id}"


def _launched(home: Home, part: str, shared_memory: str, *command: str) -> tuple[str, ...]:
    """Return the command behind `launch`, which ends what a killed predecessor left."""
    prefix = shared_memory or "loupe_nothing"
    return (sys.executable, "-m", "services.embedded.launch", home.stack_id, part, prefix, *command)


def _link(place: Path, target: Path) -> None:
    """Make `place` a link to `target`, whatever it was."""
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def _write(path: Path, text: str) -> None:
    write_if_changed(path, text)
