"""Where everything of one stack listens, and the environment that tells our processes.

The names are fixed: every process reads these and no others. Pure; asks nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from services.embedded.home import Home, State
from services.embedded.parts import Parts

REGION = "us-east-1"
# Processes of ours that answer on a port of their own.
_PROCESS_PORTS = ("results", "trainer", "hosting", "gateway", "ingest", "api")


@dataclass(frozen=True, slots=True)
class StackAddresses:
    """Addresses and credentials of a stack; all on loopback.

    Attributes:
        kafka_bootstrap: `host:port`.
        triton_grpc: `host:port`; `triton_http` is a URL.
        ray_address: `host:port` of the cluster's control store.
        ray_token_path: file with the token for Ray and its REST door.
        gateway_grpc: `host:port` of the synchronous door.
        metrics_url: the results service's metrics page.
        ingest_url: the ingester's HTTP door, where pictures are pushed to.
        model_repository: Triton's model repository.
        objects: folder that the S3 server serves.
        units: inference units that the machine offers.
        java: the Java binary; `backend_python`: Python of Triton's backend.
        tritonserver: folder of the installed server.
    """

    home: Path
    stack_id: str
    kafka_bootstrap: str
    redis_url: str
    database_url: str
    s3_endpoint: str
    s3_key: str
    s3_secret: str
    s3_region: str
    triton_grpc: str
    triton_http: str
    triton_metrics_url: str
    ray_address: str
    ray_dashboard_url: str
    ray_token_path: Path
    gateway_grpc: str
    metrics_url: str
    ingest_url: str
    model_repository: Path
    objects: Path
    units: int
    java: Path
    python: Path
    backend_python: Path
    tritonserver: Path


def addresses_of(home: Home, state: State, parts: Parts) -> StackAddresses:
    """Return the addresses that a home's state stands for."""
    ports = state.ports
    return StackAddresses(
        home=home.path,
        stack_id=home.stack_id,
        kafka_bootstrap=f"127.0.0.1:{ports['kafka']}",
        redis_url=f"redis://:{state.redis_password}@127.0.0.1:{ports['redis']}/0",
        database_url=home.database_url,
        s3_endpoint=f"http://127.0.0.1:{ports['s3']}",
        s3_key=state.s3_key,
        s3_secret=state.s3_secret,
        s3_region=REGION,
        triton_grpc=f"127.0.0.1:{ports['triton_grpc']}",
        triton_http=f"http://127.0.0.1:{ports['triton_http']}",
        triton_metrics_url=f"http://127.0.0.1:{ports['triton_metrics']}/metrics",
        ray_address=f"127.0.0.1:{ports['ray']}",
        ray_dashboard_url=f"http://127.0.0.1:{ports['ray_dashboard']}",
        ray_token_path=home.ray_token,
        gateway_grpc=f"127.0.0.1:{ports['gateway']}",
        metrics_url=f"http://127.0.0.1:{ports['results']}/metrics",
        ingest_url=f"http://127.0.0.1:{ports['ingest']}",
        model_repository=home.model_repository,
        objects=home.objects,
        units=state.units,
        java=parts.java,
        python=Path(sys.executable),
        backend_python=parts.backend_environment / "bin" / "python",
        tritonserver=parts.tritonserver,
    )


def process_environment(addresses: StackAddresses, state: State) -> dict[str, str]:
    """Return what every process of the stack finds in its environment, Ray's workers included."""
    ports = {f"LOUPE_{name.upper()}_PORT": str(state.ports[name]) for name in _PROCESS_PORTS}
    return {
        "LOUPE_HOME": str(addresses.home),
        "LOUPE_STACK_ID": addresses.stack_id,
        "LOUPE_KAFKA_BOOTSTRAP": addresses.kafka_bootstrap,
        "LOUPE_REDIS_URL": addresses.redis_url,
        "LOUPE_DATABASE_URL": addresses.database_url,
        "AWS_ENDPOINT_URL_S3": addresses.s3_endpoint,
        "AWS_ACCESS_KEY_ID": addresses.s3_key,
        "AWS_SECRET_ACCESS_KEY": addresses.s3_secret,
        "AWS_DEFAULT_REGION": addresses.s3_region,
        "LOUPE_TRITON_GRPC": addresses.triton_grpc,
        "LOUPE_TRITON_REPOSITORY": str(addresses.model_repository),
        "LOUPE_TRITONSERVER": str(addresses.tritonserver),
        "LOUPE_TRITON_PYTHON": str(addresses.backend_python),
        "LOUPE_RAY_ADDRESS": addresses.ray_address,
        "LOUPE_RAY_DASHBOARD_URL": addresses.ray_dashboard_url,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(addresses.ray_token_path),
        # Ray would take the machine's outside address although told 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "LOUPE_INFERENCE_UNITS": str(addresses.units),
        "LOUPE_METRICS_URL": addresses.metrics_url,
        **ports,
    }


def exported_environment(addresses: StackAddresses) -> dict[str, str]:
    """Return what `loupe env` exports for other people's programs."""
    return {
        "LOUPE_KAFKA_BOOTSTRAP": addresses.kafka_bootstrap,
        "LOUPE_METRICS_URL": addresses.metrics_url,
        "LOUPE_INGEST_URL": addresses.ingest_url,
        "AWS_ENDPOINT_URL_S3": addresses.s3_endpoint,
        "AWS_ACCESS_KEY_ID": addresses.s3_key,
        "AWS_SECRET_ACCESS_KEY": addresses.s3_secret,
        "AWS_DEFAULT_REGION": addresses.s3_region,
    }
