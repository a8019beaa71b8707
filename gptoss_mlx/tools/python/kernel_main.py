"""The kernel inside the sandbox: IPython, lean, its messages bounded.

    python kernel_main.py '{"max_text": 100000, "argv": ["-f", "connection.json"]}'

Run as a script by the relay, with nothing of gptoss_mlx in reach. The limits on single messages
are for honest code that prints too much; those who listen do not rely on them.
"""

from __future__ import annotations

import json
import sys
from typing import Any, cast

__all__ = ["bounded"]


def bounded(content: Any, max_text: int) -> Any:
    """The content of a message, its texts cut to `max_text`, of pictures only their kind."""
    if not isinstance(content, dict):
        return content
    fields = cast("dict[str, Any]", content)
    cut = {
        name: _text(value, max_text) if isinstance(value, str) else value
        for name, value in fields.items()
    }
    if isinstance(fields.get("data"), dict):
        data = cast("dict[str, Any]", fields["data"])
        cut["data"] = {
            kind: _text(value, max_text) if kind == "text/plain" else ""
            for kind, value in data.items()
        }
    if isinstance(fields.get("traceback"), list):
        lines = cast("list[Any]", fields["traceback"])
        cut["traceback"] = [_text("\n".join(map(str, lines)), max_text)]
    return cut


def _text(value: Any, max_text: int) -> str:
    """Cut; halves of surrogate pairs, which cannot be sent, are question marks."""
    return str(value)[:max_text].encode("utf-8", "replace").decode()


def _main() -> None:
    setup = json.loads(sys.argv[1])
    sys.modules["debugpy"] = cast("Any", None)  # no debugger: it takes a third of the start
    from ipykernel.kernelapp import IPKernelApp
    from jupyter_client.session import Session

    class BoundedSession(Session):
        def serialize(self, msg: Any, ident: Any = None) -> Any:
            content = bounded(msg["content"], setup["max_text"])
            return super().serialize({**msg, "content": content}, ident)

    class App(IPKernelApp):
        def _session_default(self) -> Session:
            return BoundedSession(parent=self)

        def log_connection_info(self) -> None:
            """Nothing: what it logs is read only when it fails."""

    app = App.instance()
    app.initialize(setup["argv"])
    del sys.modules["debugpy"]
    app.start()


if __name__ == "__main__":
    _main()
