"""The python tool: a stateful Jupyter kernel, shut in.

tool.py         calls; kernels that come and go
kernel.py       one kernel: asked, interrupted, ended
wire.py         bounded lines from and to the relay
relay.py        the script that runs in the sandbox, between host and kernel
kernel_main.py  the script that is the kernel
transcript.py   what was shown -> what the model reads
launch.py       folders, environment and command of relay and kernel
scratch.py      temporary folders, which do not stay
sandbox.py      bubblewrap, sandbox-exec, or nothing
seccomp.py      the filter of system calls on Linux
guard.py        the thread that watches limits
processes.py    processes: counted, measured, ended
"""

from gptoss_mlx.tools.python.guard import Limits
from gptoss_mlx.tools.python.sandbox import sandbox_problem
from gptoss_mlx.tools.python.tool import PythonTool

__all__ = ["Limits", "PythonTool", "sandbox_problem"]
