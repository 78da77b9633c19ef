"""`/metrics`: what the server did and how its stores are, as Prometheus reads it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from spraydry.web.grant import Refused, grant_of
from spraydry.web.guard.guard import Exchange, address_of, is_local
from spraydry.web.served import Served

NAMESPACE = "metrics"  # what a token has to have the right to read
_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Part:
    """What was asked of one part of the server."""

    __slots__ = ("answers", "bytes", "seconds", "slots")

    def __init__(self) -> None:
        self.answers: dict[tuple[str, int], int] = {}  # by method and status
        self.bytes = 0
        self.seconds = 0.0
        self.slots = [0] * (len(_BOUNDS_S) + 1)  # answers by the first bound that is not below their time


class Metrics(Collector):
    """Counts exchanges in plain numbers, as the server's one thread hears of them, and tells them when asked."""

    def __init__(self, served: Sequence[Served], connections: Callable[[], int]) -> None:
        self._served = served
        self._connections = connections
        self._parts: dict[str, Part] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def hear(self, exchange: Exchange) -> None:
        """Count a request that is over."""
        name = _part(exchange.scope.get("endpoint"))
        part = self._parts.get(name)
        if part is None:
            part = self._parts[name] = Part()
        method = exchange.scope["method"]
        key = (method if method in _METHODS else "other", exchange.status)
        part.answers[key] = part.answers.get(key, 0) + 1
        seconds = time.perf_counter() - exchange.began
        part.bytes += exchange.bytes
        part.seconds += seconds
        part.slots[bisect_left(_BOUNDS_S, seconds)] += 1

    async def answer(self, request: Request) -> Response:
        """The handler of `/metrics`: for tokens with the right to read them, and without one for this machine, unless
        a proxy asks for somebody else. Raises Refused."""
        grant = grant_of(request)
        grant.require("read", namespace=NAMESPACE)
        if not grant.name and ("x-forwarded-for" in request.headers or not is_local(address_of(request.scope))):
            raise Refused("this needs a token with the right to read the namespace metrics", False)
        return Response(await trio.to_thread.run_sync(generate_latest, self._registry), media_type=_TEXT)

    def collect(self) -> Iterable[Metric]:
        """All numbers; called in a thread."""
        yield from self._requests()
        connections = GaugeMetricFamily("spraydry_connections", "Connections that are open")
        connections.add_metric([], self._connections())
        yield connections
        yield from self._stores()

    def _requests(self) -> Iterable[Metric]:
        requests = CounterMetricFamily("spraydry_requests", "Requests", labels=["part", "method", "status"])
        sent = CounterMetricFamily("spraydry_sent_bytes", "Bytes of the bodies of answers", labels=["part"])
        times = HistogramMetricFamily("spraydry_request_seconds", "From a request to its end", labels=["part"])
        for name, part in dict(self._parts).items():
            for (method, status), number in dict(part.answers).items():
                requests.add_metric([name, method, str(status)], number)
            sent.add_metric([name], part.bytes)
            bounds = [*map(str, _BOUNDS_S), "+Inf"]
            buckets = list(zip(bounds, map(float, accumulate(part.slots)), strict=True))
            times.add_metric([name], buckets, part.seconds)
        return requests, sent, times

    def _stores(self) -> Iterable[Metric]:
        repository = ["repository"]
        calls = CounterMetricFamily("spraydry_store_calls", "Calls", labels=[*repository, "operation"])
        errors = CounterMetricFamily("spraydry_store_errors", "Calls that failed", labels=[*repository, "operation"])
        seconds = CounterMetricFamily("spraydry_store_seconds", "Time in calls", labels=[*repository, "operation"])
        read = CounterMetricFamily("spraydry_store_read_bytes", "Bytes from stores", labels=repository)
        written = CounterMetricFamily("spraydry_store_written_bytes", "Bytes to stores", labels=repository)
        found = CounterMetricFamily("spraydry_cache_chunks", "Chunks that were found in memory", labels=repository)
        decoded = CounterMetricFamily("spraydry_cache_frames", "Frames decoded for other chunks", labels=repository)
        waiting = GaugeMetricFamily("spraydry_store_waiting", "Values it missed", labels=[*repository, "store"])
        up = GaugeMetricFamily("spraydry_store_up", "1 where a store answers", labels=[*repository, "store"])
        repaired = CounterMetricFamily("spraydry_repaired", "Copies mended when they were read", labels=repository)
        for one in self._served:
            opened = one.repository.opened
            if opened.meter is not None:
                rows = opened.meter.report()
                for row in rows:
                    calls.add_metric([one.name, row.name], row.calls)
                    errors.add_metric([one.name, row.name], row.errors)
                    seconds.add_metric([one.name, row.name], row.total_s)
                read.add_metric([one.name], sum(row.down_bytes for row in rows))
                written.add_metric([one.name], sum(row.up_bytes for row in rows))
            for family, number in zip((found, decoded), one.repository.cache_counts, strict=True):
                family.add_metric([one.name], number)
            if opened.spread is not None:
                repaired.add_metric([one.name], opened.spread.repaired)
                for member in opened.spread.members:
                    waiting.add_metric([one.name, member.name], member.waiting)
                    up.add_metric([one.name, member.name], int(member.answers))
        return calls, errors, seconds, read, written, found, decoded, waiting, up, repaired


_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"})


def _part(endpoint: object) -> str:
    """The part of the server that a handler belongs to: the folder or module it is in; `guard` where none was asked."""
    if endpoint is None:
        return "guard"
    names = (getattr(endpoint, "__module__", None) or "").split(".")
    return names[2] if names[:2] == ["spraydry", "web"] and len(names) > 2 else "other"
