"""A session with the pages of pages/site; run it to record what the browser displays.

`PYTHONPATH=tests python -m tools.browser.session` writes pages/session.txt: read it before it is
committed.
"""

from __future__ import annotations

import json
from pathlib import Path

from gptoss_mlx.tools.browser import BrowserTool, make_backend

SITE = Path(__file__).parent / "pages" / "site"
RECORDED = Path(__file__).parent / "pages" / "session.txt"
SESSION: tuple[tuple[str, dict[str, object]], ...] = (
    ("search", {"query": "rain in Oslo", "topn": 10, "source": "news"}),
    ("open", {"id": 0}),
    ("find", {"pattern": "AUGUST"}),
    ("open", {"id": 1}),
    ("open", {"cursor": 1, "loc": 14, "num_lines": 3}),
    ("open", {"id": 0, "cursor": 1}),
    ("find", {"pattern": "snow"}),
    ("open", {"id": "index.html"}),
    ("open", {"view_source": True}),
)


def transcript() -> str:
    """The calls of the session, each with what it displays."""
    tool = BrowserTool(make_backend(f"folder:{SITE}"))
    parts: list[str] = []
    for name, arguments in SESSION:
        content = json.dumps(arguments)
        parts.append(f">>> browser.{name} {content}\n{tool.run(f'browser.{name}', content)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    RECORDED.write_text(transcript(), "utf-8")
