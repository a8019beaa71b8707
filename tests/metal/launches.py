"""Counts what a GPU would launch for one decode step, on the graph that MLX builds for it.

The graph is built as for export, which needs no GPU, and printed by `mx.export_to_dot`. MLX's fast
operations are one launch each there, but are taken apart on its CPU backend: while the graph is
built a kernel that is never run stands for each. Views launch nothing; of what remains every
operation is counted as one, also those that need two. It does not know what a launch costs.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

# Operations that only give memory another shape, or that MLX resolves while it builds the graph.
VIEWS = {
    "Broadcast",
    "ExpandDims",
    "Flatten",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "StopGradient",
    "Transpose",
    "Unflatten",
}
_NODE = re.compile(r'label ="(\w+)", shape=rectangle')


class _TracedError(Exception):
    """The graph was printed: there is nothing left to do."""


def launches(step: Callable[[mx.array], list[mx.array]]) -> Counter[str]:
    """The operations of `step`, which is given one token (1, 1), by name; views are left out."""
    with tempfile.TemporaryDirectory() as folder, _fast_operations_in_one_piece():
        graph = Path(folder) / "graph.dot"

        def traced(ids: mx.array) -> list[mx.array]:
            mx.export_to_dot(str(graph), *step(ids))
            raise _TracedError

        with pytest.raises(_TracedError):
            mx.export_function(str(Path(folder) / "function"), traced, mx.array([[7]]))
        nodes = Counter(_NODE.findall(graph.read_text()))
    return Counter({name: n for name, n in nodes.items() if name not in VIEWS})


@contextmanager
def _fast_operations_in_one_piece() -> Generator[None]:
    factory: Any = mx.fast.metal_kernel
    kernel = factory(name="stands_for", input_names=["x"], output_names=["y"], source=";")

    def one_launch(x: mx.array, *_: Any, **__: Any) -> mx.array:
        [y] = kernel(
            inputs=[x],
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
            output_shapes=[x.shape],
            output_dtypes=[x.dtype],
        )
        return y

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rms_norm", "rope", "scaled_dot_product_attention"):
            patch.setattr(mx.fast, name, one_launch)
        yield
