"""The package as it is imported."""

from __future__ import annotations

import subprocess
import sys

from gptoss_mlx.tools import browser


def test_the_exported_names() -> None:
    """What is exported is sorted, and there."""
    assert sorted(browser.__all__) == browser.__all__
    assert all(hasattr(browser, name) for name in browser.__all__)


def test_importing_it_is_quick() -> None:
    """HTTP, HTML and search libraries are imported when they are needed."""
    heavy = {"ddgs", "html2text", "httpcore2", "httpx2", "lxml"}
    code = f"import sys, gptoss_mlx.tools.browser as _; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
