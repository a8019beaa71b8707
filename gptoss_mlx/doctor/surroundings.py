"""What surrounds the program: the sandbox, the port of the server, variables, the Hub."""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Iterator

from gptoss_mlx.doctor.finding import Finding
from gptoss_mlx.errors import GptOssError

__all__ = ["KNOWN_VARIABLES", "check_hub", "check_port", "check_sandbox", "check_variables"]

_PREFIX = "GPTOSS_MLX_"
KNOWN_VARIABLES = tuple(
    _PREFIX + name for name in ("API_KEY", "DATA", "DEBUG", "KERNELS", "MEMORY", "MODEL")
)
_MODEL = "GPTOSS_MLX_MODEL"
_OTHERS = (
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HTTPS_PROXY",
    "XDG_CACHE_HOME",
)
_SLOW = {
    "MLX_DISABLE_COMPILE": "MLX is slower with it",
    "METAL_DEVICE_WRAPPER_TYPE": "Metal checks every call, slowly",
    "MTL_DEBUG_LAYER": "Metal checks every call, slowly",
    "MTL_SHADER_VALIDATION": "Metal checks every kernel, slowly",
}
_SECRET = ("KEY", "TOKEN", "PROXY")  # a proxy's address may hold a password


def check_sandbox() -> Iterator[Finding]:
    """Whether the model's Python can be shut in; without, the rest works."""
    from gptoss_mlx.tools.python import sandbox_problem

    problem = sandbox_problem()
    if problem is None:
        yield Finding("sandbox", "Python is shut in (--tools python)")
    else:
        yield Finding("sandbox", problem, "warning")


def check_port(port: int = 8080) -> Iterator[Finding]:
    """Whether `serve` would find its port free."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        why = f"{port} is taken ({error.strerror}): gptoss-mlx serve --port 0 finds another"
        yield Finding("port", why, "warning")
    else:
        yield Finding("port", f"{port} is free for serve")


def check_variables() -> Iterator[Finding]:
    """Those that are set and matter, those that slow things down, and names that mean nothing."""
    names = sorted(name for name in os.environ if name.startswith(_PREFIX) or name in _OTHERS)
    shown = ", ".join(_shown(name) for name in names if os.environ[name])
    yield Finding("variables", shown or "none is set that matters")
    for name in names:
        if name.startswith(_PREFIX) and name not in KNOWN_VARIABLES:
            yield Finding("variables", _unknown(name), "warning")
    yield from _missing_model()
    for name, effect in _SLOW.items():
        if os.environ.get(name, "0") not in ("", "0"):
            yield Finding("variables", f"{name} is set: {effect}; unset it", "warning")


def _missing_model() -> Iterator[Finding]:
    """Whether the model that is taken if none is named is there."""
    from gptoss_mlx.library import locate

    name = os.environ.get(_MODEL)
    if not name or name == "demo":
        return
    try:
        problem = None if locate(name).exists() else f"no model {name!r} is here"
    except GptOssError as error:
        problem = str(error)
    if problem:
        yield Finding("variables", f"{_MODEL}: {problem}; unset it, or name another", "warning")


def _shown(name: str) -> str:
    is_secret = any(part in name for part in _SECRET)
    return f"{name} (set)" if is_secret else f"{name}={os.environ[name]}"


def _unknown(name: str) -> str:
    known = [variable.removeprefix(_PREFIX) for variable in KNOWN_VARIABLES]
    near = difflib.get_close_matches(name.removeprefix(_PREFIX), known, n=1)
    if near:
        return f"{name} means nothing: did you mean {_PREFIX}{near[0]}?"
    return f"{name} means nothing: known are {', '.join(KNOWN_VARIABLES)}"


def check_hub() -> Iterator[Finding]:
    """Whether models can be downloaded now: asks the Hub."""
    from gptoss_mlx.hub import Hub, reach

    hub = Hub()
    reach(hub)
    yield Finding("Hub", f"{hub.endpoint} answers")
