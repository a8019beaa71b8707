"""What `gptoss-mlx doctor` looks at: checks that give findings, each well or with its remedy.

    finding.py       a finding; checks that fail are findings, too
    machine.py       system, Python, packages, GPU, kernels
    memory.py        what fits, Metal's limit
    storage.py       disks, installed models, the vocabulary
    surroundings.py  sandbox, port, variables, the Hub

Each check imports what it needs when it runs, so that a broken installation can be examined. It
does not know how findings are shown.
"""

from gptoss_mlx.doctor.finding import Finding, Level, examine
from gptoss_mlx.doctor.machine import (
    Progress,
    check_device,
    check_kernels,
    check_packages,
    check_system,
)
from gptoss_mlx.doctor.memory import check_memory
from gptoss_mlx.doctor.storage import check_disks, check_models, check_vocabulary
from gptoss_mlx.doctor.surroundings import check_hub, check_port, check_sandbox, check_variables

__all__ = [
    "Finding",
    "Level",
    "Progress",
    "check_device",
    "check_disks",
    "check_hub",
    "check_kernels",
    "check_memory",
    "check_models",
    "check_packages",
    "check_port",
    "check_sandbox",
    "check_system",
    "check_variables",
    "check_vocabulary",
    "examine",
]
