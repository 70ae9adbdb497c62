"""Readiness probes: one cheap question to each server that only a working one can answer.

A probe returns within about two seconds and never raises for a server that is not there.
"""

from __future__ import annotations

import json
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

PROBE_TIMEOUT_S = 2.0
# Loopback never goes through a proxy.
LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def kafka_answers(bootstrap: str) -> bool:
    """Tell whether the broker lists its brokers to an admin client."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    # The client logs every refused connection while the broker starts.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    host, port = bootstrap.split(":")
    if not port_answers(host, int(port)):
        return False
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap, request_timeout_ms=2000, bootstrap_timeout_ms=2000
        )
    except (KafkaError, OSError, AssertionError):
        return False
    try:
        return bool(admin.describe_cluster()["brokers"])
    except (KafkaError, OSError, KeyError):
        return False
    finally:
        admin.close()


def port_answers(host: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def redis_answers(port: int, password: str) -> bool:
    """Tell whether Redis answers PING with PONG."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
                answer += more
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"


def s3_answers(endpoint: str, key: str, secret: str, region: str) -> bool:
    """Tell whether a signed request is answered."""
    from botocore.exceptions import BotoCoreError, ClientError

    from services.embedded.contents import s3_client

    host, port = endpoint.removeprefix("http://").split(":")
    if not port_answers(host, int(port)):
        return False
    try:
        s3_client(endpoint, key, secret, region).list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


def http_answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Tell whether GET returns a 2xx status."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - loopback only
    try:
        with LOOPBACK.open(request, timeout=PROBE_TIMEOUT_S):
            return True
    except (OSError, urllib.error.URLError, ValueError):
        return False


def ray_answers(dashboard_url: str, token: Path) -> bool:
    """Tell whether Ray's REST door is open and a node is alive behind it."""
    request = urllib.request.Request(f"{dashboard_url}/nodes?view=summary", headers=ray_headers(token))  # noqa: S310
    try:
        with LOOPBACK.open(request, timeout=PROBE_TIMEOUT_S) as response:
            nodes = json.load(response)["data"]["summary"]
    except (OSError, urllib.error.URLError, ValueError, KeyError):
        return False
    return any(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)


def ray_headers(token: Path) -> dict[str, str]:
    """Return the header that Ray's REST door asks for."""
    return {"Authorization": f"Bearer {token.read_text().strip()}"}
