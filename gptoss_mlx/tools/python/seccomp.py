"""A filter of system calls for Linux: refuses those that get memory or powers out of sight.

Memory that belongs to no process and no folder (System V segments, memory files) is counted by
nobody; tracing, keys, io_uring and their like widen what code can attack, and honest code does
without. It is a program for the kernel's classic BPF machine, as bytes. It does not install it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["ARCHITECTURES", "NUMBERS", "filter_program"]

NUMBERS = {  # of each call on x86_64 and on aarch64
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "ptrace": (101, 117),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_...
X32 = 0x40000000  # numbers from here on are those of x86_64's second ABI
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT = 0, 4  # offsets in struct seccomp_data
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # the latter with EPERM


def filter_program(machine: str) -> bytes:
    """The filter for a machine as `platform.machine` names it; empty where none is known."""
    if machine not in ARCHITECTURES or struct.calcsize("P") != 8:
        return b""
    return b"".join(struct.pack("=HBBI", *step) for step in _steps(*ARCHITECTURES[machine]))


def _steps(column: int, architecture: int) -> Iterator[tuple[int, int, int, int]]:
    """(code, steps to skip if true, if false, value); another ABI is refused altogether."""
    numbers = [found[column] for found in NUMBERS.values()]
    yield LOAD, 0, 0, ARCHITECTURE_AT
    yield EQUAL, 0, len(numbers) + 3, architecture
    yield LOAD, 0, 0, NUMBER_AT
    yield AT_LEAST, len(numbers) + 1, 0, X32
    for index, number in enumerate(numbers):
        yield EQUAL, len(numbers) - index, 0, number
    yield RETURN, 0, 0, ALLOW
    yield RETURN, 0, 0, REFUSE
