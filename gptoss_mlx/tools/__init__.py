"""What the model may call: Python, a browser, patches, the user's own functions, MCP servers.

    base.py        what a tool is
    toolbox.py     the tools of one conversation
    functions.py   functions of a Python file, or commands with a JSON schema
    mcp.py         tools of MCP servers
    python.py      a stateful Jupyter kernel, in a sandbox
    sandbox.py     how a process is shut in
    browser/       search, open, find
    apply_patch.py files changed in the format the models were trained on

A tool gets text and gives text. It does not know the conversation or the terminal.
"""

from gptoss_mlx.tools.base import Preview, Tool, json_arguments
from gptoss_mlx.tools.toolbox import Toolbox

__all__ = ["Preview", "Tool", "Toolbox", "json_arguments"]
