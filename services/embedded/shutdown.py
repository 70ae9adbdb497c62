"""Stopping a stack in an order that loses nothing and takes seconds.

Our processes first, so that they commit what they have; then Ray, which would wait 30 s for Serve
unless Serve is told to end before; then the servers that everything spoke to.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request

from services.embedded.addresses import StackAddresses
from services.embedded.probes import LOOPBACK, ray_headers
from services.embedded.programs import OUR_PROCESSES
from services.embedded.supervision import Supervisor

logger = logging.getLogger(__name__)

# Replicas finish the batches that they hold; what they do not finish is read again at the next start.
_SERVE_DEADLINE_S = 4.0


def stop_programs(
    supervisor: Supervisor,
    running: Collection[str],
    addresses: StackAddresses,
    on_stopped: Callable[[str], None],
) -> None:
    """Stop the running programs, group by group, each group at once."""
    ours = [name for name in running if name in OUR_PROCESSES]
    servers = [name for name in running if name not in OUR_PROCESSES and name != "ray"]
    _stop_group(supervisor, ours, on_stopped)
    if "ray" in running:
        _end_serve(addresses)
        _stop_group(supervisor, ["ray"], on_stopped)
    _stop_group(supervisor, servers, on_stopped)


def _stop_group(supervisor: Supervisor, names: Collection[str], on_stopped: Callable[[str], None]) -> None:
    def stop(name: str) -> None:
        supervisor.stop_program(name)
        on_stopped(name)

    with ThreadPoolExecutor() as pool:
        for job in [pool.submit(stop, name) for name in names]:
            job.result()


def _end_serve(addresses: StackAddresses) -> None:
    """Ask Ray to end Serve, if it runs; what does not end in time is killed with Ray."""
    url = f"{addresses.ray_dashboard_url}/api/serve/applications/"
    headers = ray_headers(addresses.ray_token_path)
    try:
        with LOOPBACK.open(Request(url, headers=headers), timeout=_SERVE_DEADLINE_S) as answer:  # noqa: S310
            if not json.load(answer).get("controller_info"):
                return
        with LOOPBACK.open(Request(url, method="DELETE", headers=headers), timeout=_SERVE_DEADLINE_S):  # noqa: S310
            return
    except (OSError, ValueError) as error:
        logger.info("Serve did not end in time: %s", error)
