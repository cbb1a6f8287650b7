"""What the server counts, for Prometheus and for the studio's health view. One registry for each app."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from secrets import token_hex
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sonant.server.auth import Caller
from sonant.server.models import ModelPool

KEPT_RECORDS = 200
_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60)
_FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 4, 8)


@dataclass(kw_only=True)
class Record:
    """How one speech request went. Holds neither its text nor its sound."""

    id: str
    model: str
    voice: str = ""
    response_format: str = ""
    characters: int = 0
    seed: int = 0
    outcome: str = "running"
    """"ok", "client_gone", or an error's code."""
    started_at: float = field(default_factory=time.time)
    first_audio: float | None = None
    """Seconds from arrival until the first bytes of sound left."""
    seconds: float | None = None
    """Seconds from arrival until the end."""
    audio_seconds: float = 0.0
    frames: int = 0
    rtf: float | None = None
    """Seconds of work for each second of speech."""
    timings: dict[str, float] = field(default_factory=dict)
    guards: list[dict[str, Any]] = field(default_factory=list)
    segments: int = 0
    owner: str = ""
    """The caller's id; never shown."""

    def public(self) -> dict[str, Any]:
        """As plain data."""
        content = asdict(self)
        del content["owner"]
        return content

    def is_seen_by(self, caller: Caller) -> bool:
        """Whether the caller may know of it: its own, or everybody's for an administrator."""
        return caller.is_admin or caller.id == self.owner


class Metrics:
    """Counters and histograms of one app, and its last requests."""

    def __init__(self, pool: ModelPool) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self.registry.register(_PoolCollector(pool))
        self.records: deque[Record] = deque(maxlen=KEPT_RECORDS)
        self.running: dict[str, Record] = {}
        registry = self.registry
        self.http = Counter(
            "sonant_http_requests", "HTTP requests", ["route", "method", "status"], registry=registry
        )
        self._requests = Counter(
            "sonant_speech_requests", "Speech requests by outcome", ["model", "outcome"], registry=registry
        )
        self._audio = Counter("sonant_audio_seconds", "Seconds of speech made", ["model"], registry=registry)
        self._characters = Counter(
            "sonant_input_characters", "Characters taken", ["model"], registry=registry
        )
        self._first = Histogram(
            "sonant_first_audio_seconds",
            "Arrival of a request to its first bytes of sound",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._rtf = Histogram(
            "sonant_real_time_factor",
            "Seconds of work for each second of speech",
            ["model"],
            buckets=_FACTORS,
            registry=registry,
        )
        self._guards = Counter(
            "sonant_guard_events", "Things the engine stopped or mended", ["model", "kind"], registry=registry
        )
        self.left = Counter(
            "sonant_clients_gone", "Requests stopped because their client left", registry=registry
        )

    def begin(self, record: Record) -> None:
        """A request starts."""
        self.running[record.id] = record

    def end(self, record: Record) -> None:
        """A request is over, well or not."""
        self.running.pop(record.id, None)
        self.records.append(record)
        model = record.model
        self._requests.labels(model, record.outcome).inc()
        self._characters.labels(model).inc(record.characters)
        self._audio.labels(model).inc(record.audio_seconds)
        if record.first_audio is not None:
            self._first.labels(model).observe(record.first_audio)
        if record.rtf is not None:
            self._rtf.labels(model).observe(record.rtf)
        for guard in record.guards:
            self._guards.labels(model, guard["kind"]).inc()
        if record.outcome == "client_gone":
            self.left.inc()

    def find(self, request_id: str) -> Record | None:
        """A running or recent request."""
        if request_id in self.running:
            return self.running[request_id]
        return next((record for record in reversed(self.records) if record.id == request_id), None)

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self.registry)


class _PoolCollector(Collector):
    """Reads the pool when asked, so gauges are never stale."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """Queue, memory and steps of the models."""
        running = GaugeMetricFamily("sonant_requests_running", "Requests being spoken", labels=["model"])
        waiting = GaugeMetricFamily("sonant_requests_waiting", "Requests in the queue", labels=["model"])
        loaded = GaugeMetricFamily("sonant_model_loaded", "1 while the model is in memory", labels=["model"])
        memory = GaugeMetricFamily("sonant_model_bytes", "Memory a loaded model takes", labels=["model"])
        steps = CounterMetricFamily("sonant_model_steps", "Batched steps since loading", labels=["model"])
        by_name = {model.name: model for model in self._pool.loaded}
        for name in self._pool.names:
            model = by_name.get(name)
            loaded.add_metric([name], 1.0 if model else 0.0)
            if model is not None:
                now, queued = model.load
                running.add_metric([name], now)
                waiting.add_metric([name], queued)
                memory.add_metric([name], model.bytes)
                steps.add_metric([name], model.desk.engine.steps)
        yield from (running, waiting, loaded, memory, steps)


class Observe:
    """ASGI middleware: an id for every request, counted by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; add X-Request-Id."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = f"req_{token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        scope["state"]["arrived"] = time.monotonic()
        status = 101 if scope["type"] == "websocket" else 499

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", []))
                headers.append((b"x-request-id", request_id.encode()))
                headers.append((b"x-content-type-options", b"nosniff"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope.get("method", "WS")
            method = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "WS") else "other"
            self._metrics.http.labels(route, method, str(status)).inc()
