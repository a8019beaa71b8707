"""What the model may call: text in, text out. Nothing here knows the conversation or the terminal.

base.py       what a tool is
toolbox.py    the tools of one conversation
opening.py    tools by the names that --tools knows
python/       a stateful Jupyter kernel, in a sandbox
browser/      search, open, find
apply_patch/  files changed in the format the models were trained on
functions/    functions of a Python file, or commands with a JSON schema
mcp/          tools of MCP servers
calls.py      what calls of functions have in common
children.py   child processes: read with limits, killed with all they start
"""

from gptoss_mlx.tools.base import Preview, Tool, json_arguments
from gptoss_mlx.tools.toolbox import Toolbox

__all__ = ["Preview", "Tool", "Toolbox", "json_arguments"]
