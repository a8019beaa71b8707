"""How a server is set up. Data, and what contradicts itself in it."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from gptoss_mlx.errors import UsageError

__all__ = ["Settings", "is_loopback"]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")  # as browsers send it: no path


@dataclass(frozen=True)
class Settings:
    """What holds for all requests.

    model: the id that clients are told. host: the address that is bound. api_keys: one of them must
    come with every request; none may be asked for on a loopback address, or where `is_open`.
    allowed_hosts: names that clients may call the server by, beside its address. origins: of web
    pages that may call it; `*` is all. tools: builtin tools that requests may ask for, and what
    `open_tools` knows each by. heartbeat: seconds of silence after which a stream says that it
    lives. max_body: bytes of a request. open_responses: name events as that specification does,
    where OpenAI's names differ.

    Raises:
        UsageError: everybody in the network could use it, and nobody has said that they may; a key
            is empty; an origin is none.
    """

    model: str
    host: str = "127.0.0.1"
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    is_open: bool = False
    allowed_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict[str, str])
    heartbeat: float = 10.0
    max_body: int = 32 << 20
    open_responses: bool = False
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        if not all(self.api_keys):
            raise UsageError("the API key is empty (a variable that is not set?)")
        if not (self.api_keys or self.is_open or is_loopback(self.host)):
            raise UsageError(
                f"{self.host} can be reached from other machines: pass --api-key KEY, or --open to "
                "let everybody in"
            )
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise UsageError(f"--cors {origin}: an origin is https://NAME or http://NAME:PORT")


def is_loopback(host: str) -> bool:
    """Whether an address, or `localhost`, is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
