"""Prometheus metrics from the one list in `services.domain.metrics`, and the page that shows them.

The page answers `/metrics` and `/healthz`; supervisors and probes read the latter.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.domain.metrics import METRICS, Metric

# A second series per counter and label set that nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own gap


class Metrics:
    """All metrics of the list, registered once; typed by the `Metric` that is passed in."""

    def __init__(self) -> None:
        """Create an own registry, so that tests do not meet."""
        self.registry = CollectorRegistry()
        self._made: dict[str, Any] = {metric.name: self._make(metric) for metric in METRICS}

    def _make(self, metric: Metric) -> Any:
        if metric.kind == "histogram":
            return Histogram(
                metric.name, metric.meaning, metric.labels, registry=self.registry, buckets=metric.buckets
            )
        kind = Counter if metric.kind == "counter" else Gauge
        return kind(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self._of(metric, labels).inc(amount)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._of(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add an observation to a histogram, in the metric's unit."""
        self._of(metric, labels).observe(value)

    def forget(self, metric: Metric, **labels: str) -> None:
        """Show a label set no more; harmless when it was never shown."""
        with contextlib.suppress(KeyError):
            self._made[metric.name].remove(*(labels[name] for name in metric.labels))

    def _of(self, metric: Metric, labels: dict[str, str]) -> Any:
        made = self._made[metric.name]
        return made.labels(**labels) if labels else made

    def page(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)


def serve_metrics(
    metrics: Metrics, port: int, is_healthy: Callable[[], bool], host: str = "127.0.0.1"
) -> ThreadingHTTPServer:
    """Serve `/metrics` and `/healthz` (200 or 503) from a thread; `shutdown()` ends it."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            if self.path == "/metrics":
                self._answer(200, metrics.page(), CONTENT_TYPE_LATEST)
            elif self.path == "/healthz":
                healthy = is_healthy()
                self._answer(200 if healthy else 503, b"ok\n" if healthy else b"not ready\n", "text/plain")
            else:
                self._answer(404, b"/metrics or /healthz\n", "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # the library's name
            """Say nothing: probes ask every second."""

    server = ThreadingHTTPServer((host, port), Page)
    threading.Thread(target=server.serve_forever, daemon=True, name="metrics").start()
    return server
