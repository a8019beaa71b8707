"""What the server has done and how it does, for Prometheus.

Requests are counted when their answer ends, tokens and times when the engine ends a sequence,
whichever API it was for; the rest is looked up when somebody asks. Nothing of what was said shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from gptoss_mlx import sequence as sequences
from gptoss_mlx.server.host import ModelHost

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST_TOKEN = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # seconds
_RATES = (1, 2, 5, 10, 20, 30, 40, 60, 80, 120, 200, 400)  # tokens a second


class Metrics:
    """The figures of one application, in a registry of its own."""

    def __init__(self, host: ModelHost) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "gptoss_mlx_requests",
            "HTTP requests, by the path of the API and status.",
            ["path", "status"],
            registry=registry,
        )
        self._ends = Counter(
            "gptoss_mlx_completions",
            "Completions that have ended: stop, length, cancelled, error.",
            ["reason"],
            registry=registry,
        )
        self._tokens = Counter(
            "gptoss_mlx_tokens",
            "Tokens: of prompts (prompt), those of them that were cached (cached), generated.",
            ["kind"],
            registry=registry,
        )
        self._prompts = Counter(
            "gptoss_mlx_prompts",
            "Prompts that began to be computed, by whether the cache held their beginning.",
            ["cache"],
            registry=registry,
        )
        self._first_token = Histogram(
            "gptoss_mlx_time_to_first_token_seconds",
            "From a completion's submission to its first token.",
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self._rate = Histogram(
            "gptoss_mlx_tokens_per_second",
            "Of each completion, after its first token.",
            buckets=_RATES,
            registry=registry,
        )
        registry.register(_Now(host))
        host.watch(self.ended)

    def answered(self, scope: Scope, routes: Sequence[BaseRoute], status: int | None) -> None:
        """A request has its answer; no status: the client went away before."""
        self._requests.labels(_path(scope, routes), status or "none").inc()

    def ended(self, sequence: sequences.Sequence) -> None:
        """A completion has ended; told by any thread."""
        stats = sequence.stats
        self._ends.labels(sequence.finish_reason).inc()
        if sequence.started is not None:
            self._prompts.labels("hit" if stats.cached_tokens else "miss").inc()
            self._tokens.labels("prompt").inc(stats.prompt_tokens)
            self._tokens.labels("cached").inc(stats.cached_tokens)
            self._tokens.labels("generated").inc(stats.completion_tokens)
        if sequence.answered is not None:
            self._first_token.observe(sequence.answered - sequence.submitted)
        if stats.decode_rate:
            self._rate.observe(stats.decode_rate)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host
        self._process = psutil.Process()

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering it looks nothing up."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The model, its queue, and memory."""
        health, model = self._host.health, self._host.model
        yield _gauge("model_loaded", "Whether the model is in memory.", int(model is not None))
        yield _gauge("ready", "Whether a request would be served now.", int(health.is_ready))
        queue = GaugeMetricFamily("gptoss_mlx_queue", "Requests.", labels=["state"])
        queue.add_metric(["running"], health.running)
        queue.add_metric(["waiting"], health.waiting)
        yield queue
        memory = GaugeMetricFamily("gptoss_mlx_memory_bytes", "Memory.", labels=["kind"])
        for kind, nbytes in self._memory().items():
            memory.add_metric([kind], nbytes)
        yield memory
        yield _gauge("threads", "Threads of the process.", self._process.num_threads())
        yield _gauge("open_files", "File descriptors of the process.", self._process.num_fds())

    def _memory(self) -> dict[str, int]:
        """MLX's in use and kept, of the process; of a model planned and for prefixes."""
        found = {
            "mlx_active": mx.get_active_memory(),
            "mlx_cached": mx.get_cache_memory(),
            "mlx_peak": mx.get_peak_memory(),
            "process": self._process.memory_info().rss,
        }
        model = self._host.model
        if model is not None:
            found["prefix_cache"] = model.engine.prefix.nbytes
            found["prefix_cache_limit"] = model.engine.prefix.budget
            if model.engine.plan is not None:
                found["planned"] = model.engine.plan.total
        return found


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gptoss_mlx_{name}", text, value=value)


def _path(scope: Scope, routes: Sequence[BaseRoute]) -> str:
    """The path of the route that a request means: few, whatever clients make up."""
    found = (r for r in routes if isinstance(r, Route) and r.matches(scope)[0] != Match.NONE)
    route = next(found, None)
    return "other" if route is None else route.path
