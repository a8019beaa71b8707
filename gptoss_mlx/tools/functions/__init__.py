"""The user's own functions: of a Python file, or commands with a JSON schema.

tool.py     which functions there are; calls
process.py  the child that runs a file's functions, and commands
worker.py   the script that the child runs
"""

from gptoss_mlx.tools.functions.tool import FunctionsTool, load_functions

__all__ = ["FunctionsTool", "load_functions"]
