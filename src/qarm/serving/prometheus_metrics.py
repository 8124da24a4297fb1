"""Prometheus metrics: requests by route, encoder queue and batches, store, bundle."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import Scope

__all__ = ["METRICS_TYPE", "Metrics"]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """One registry per app; labels come from small fixed sets, never from what a request says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "qarm_requests", "Requests answered", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "qarm_request_seconds",
            "From the request's head to the end of its answer",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "qarm_encoder_batch_items", "Items of an encoder call", buckets=SIZES, registry=self.registry
        )
        self.coding = Histogram(
            "qarm_encoder_seconds", "Time of an encoder call", buckets=SECONDS, registry=self.registry
        )
        self.restarts = Counter(
            "qarm_encoder_restarts", "Encoder processes that were started anew", registry=self.registry
        )
        self.stored = Counter("qarm_codes_stored", "Codes appended to the store", registry=self.registry)
        self.swaps = Counter("qarm_bundle_swaps", "Bundles swapped in", registry=self.registry)
        self._bundle = Gauge("qarm_bundle", "The bundle in use", ("version",), registry=self.registry)
        self._waiting = Gauge(
            "qarm_encoder_waiting_items", "Items that wait for the encoder", registry=self.registry
        )
        self._items = Gauge("qarm_bundle_items", "Items of the bundle in use", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request under its route's template."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def serves(self, version: str, items: int) -> None:
        """The bundle that answers from now on."""
        self._bundle.clear()
        self._bundle.labels(version).set(1)
        self._items.set(items)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Where the number of waiting items is read when figures are asked for."""
        self._waiting.set_function(waiting)

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)
