"""What Ray Serve builds: the applications that hosting's configuration names (arrow 7).

The only file that makes Ray deployments and clients; classes are plain and get factories, which run
inside the replica. Numbers of replicas, resources and `user_config` come from hosting.
"""

from __future__ import annotations

from functools import partial

import ray.serve as ray_serve

from serve.gateway import STOP_GRACE_S, Gateway, InspectorDoor
from serve.inspector import CALLS_AT_ONCE, Inspector, InspectorCore
from serve.lanes import Bounds
from serve.model_watch import DRAIN_S, ModelWatch, NodeLimits
from serve.ray_units import RayUnits
from serve.replica_ports import listen_on_node_address_only
from serve.settings import ServeSettings
from serve.stream import GROUP, LEAVE_S, Outside, Stream, StreamCore, StreamLimits
from serve.versions import VersionCache
from services.adapters.broker.kafka import KafkaBrokerConsumer, KafkaBrokerProducer
from services.adapters.broker.limits import check_size_limits
from services.adapters.clock import SystemClock
from services.adapters.logs import configure_logging
from services.adapters.triton.server import TritonServer
from services.domain.topics import FRAMES

# A replica is asked this often and replaced after three failures: its own threads find and heal faults
# sooner, so this only catches a replica that is beyond that.
HEALTH_CHECK_PERIOD_S = 5.0
HEALTH_CHECK_TIMEOUT_S = 15.0


def build_inspector(args: dict[str, str]) -> ray_serve.Application:
    """Return the application `inspector-<project>`: its replicas are the project's inference units."""
    deploy = ray_serve.deployment(
        max_ongoing_requests=CALLS_AT_ONCE,
        graceful_shutdown_timeout_s=DRAIN_S + 5.0,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
    )
    return deploy(Inspector).bind(make_core, args["project"])


def build_stream(args: dict[str, str]) -> ray_serve.Application:  # noqa: ARG001 - Serve's signature
    """Return the application `stream`: its replicas are the members of the consumer group."""
    deploy = ray_serve.deployment(
        graceful_shutdown_timeout_s=LEAVE_S + 5.0,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
    )
    return deploy(Stream).bind(make_stream)


def build_gateway(args: dict[str, str]) -> ray_serve.Application:  # noqa: ARG001 - Serve's signature
    """Return the application `gateway`: the synchronous door of a node."""
    deploy = ray_serve.deployment(max_replicas_per_node=1, graceful_shutdown_timeout_s=STOP_GRACE_S + 5.0)
    return deploy(Gateway).bind(make_door, gateway_address)


def make_core(project: str) -> InspectorCore:
    """Return the core of one inference unit."""
    _begin(f"inspector-{project}")
    settings, clock = ServeSettings(), SystemClock()
    watch = ModelWatch(
        TritonServer(settings.triton_grpc),
        VersionCache(settings.object_store(), settings.home / "cache" / "models"),
        clock,
        NodeLimits(settings.triton_repository, settings.threads_per_unit),
    )
    replica = ray_serve.get_replica_context().replica_tag
    return InspectorCore(watch, clock, threads=settings.threads_per_unit, unit=replica)


def make_stream() -> StreamCore:
    """Return one member of the group `loupe-stream`."""
    _begin("stream")
    settings = ServeSettings()
    bounds = Bounds(
        frames=settings.stream_in_flight_frames,
        size_bytes=settings.stream_in_flight_bytes,
        calls_per_project=settings.stream_batches_count,
    )
    outside = Outside(
        open_consumer=lambda on_revoked: KafkaBrokerConsumer(
            settings.kafka_bootstrap, topics=[FRAMES.name], group=GROUP, on_revoked=on_revoked
        ),
        open_producer=partial(_open_producer, settings.kafka_bootstrap),
        units=RayUnits(),
        store=settings.object_store(),
        clock=SystemClock(),
    )
    limits = StreamLimits(
        bounds=bounds,
        commit_interval_s=settings.stream_commit_interval_s,
        poison_share_ratio=settings.stream_poison_ratio,
    )
    return StreamCore(outside, limits)


def _open_producer(bootstrap: str) -> KafkaBrokerProducer:
    """Connect to a broker that takes the largest frame and dead letter; a stream without that stops."""
    check_size_limits(bootstrap)
    return KafkaBrokerProducer(bootstrap)


def make_door() -> InspectorDoor:
    """Return the synchronous door."""
    _begin("gateway")
    return InspectorDoor(RayUnits(), SystemClock())


def gateway_address() -> str:
    """Return where this node's door listens, host:port."""
    settings = ServeSettings()
    return f"{settings.gateway_host}:{settings.gateway_port}"


def _begin(process: str) -> None:
    """Do what every replica does first."""
    configure_logging(process)
    listen_on_node_address_only()
