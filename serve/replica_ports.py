"""Ray Serve's replicas listen where their cluster reaches them, and nowhere else.

Ray 2.60 binds the internal server of every replica, which unpickles what it is sent, to all addresses
(`[::]:0` in `ray/serve/_private/replica.py`) and has no setting for it. It is bound after the deployment's
class is made, so the factories of `serve.app` come early enough. `tests/e2e/test_open_door.py` looks.
"""

from __future__ import annotations

from typing import Any

import ray
import ray.serve._private.replica as replica

# Ray types some of itself only.
_ray_replica: Any = replica
_ray_util: Any = ray.util
# Kept from the import, so that calling twice wraps it once.
_add_port = _ray_replica.add_port_to_grpc_server


def listen_on_node_address_only() -> None:
    """Have this replica's internal server listen on its node's address: loopback on one machine."""
    _ray_replica.add_port_to_grpc_server = _add_port_at_node


def _add_port_at_node(server: Any, address: str) -> Any:
    port = address.rpartition(":")[2]
    return _add_port(server, f"{_ray_util.get_node_ip_address()}:{port}")
