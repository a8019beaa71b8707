"""The python tool: a stateful Jupyter kernel, shut in.

tool.py         calls; kernels that come and go
kernel.py       one kernel, by Jupyter's messages
kernel_main.py  the script that runs in the sandbox
transcript.py   messages -> what the model reads
launch.py       folders, environment and command of a kernel
sandbox.py      bubblewrap, sandbox-exec, or nothing
guard.py        the thread that watches limits
processes.py    processes: counted, measured, ended
"""

from gptoss_mlx.tools.python.guard import Limits
from gptoss_mlx.tools.python.sandbox import sandbox_problem
from gptoss_mlx.tools.python.tool import PythonTool

__all__ = ["Limits", "PythonTool", "sandbox_problem"]
