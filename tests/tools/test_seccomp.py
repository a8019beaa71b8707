"""The filter of system calls, run step by step; that Linux takes it is tested in test_escapes."""

from __future__ import annotations

import struct

import pytest

from gptoss_mlx.tools.python.seccomp import (
    ALLOW,
    ARCHITECTURES,
    AT_LEAST,
    EQUAL,
    LOAD,
    NUMBERS,
    REFUSE,
    RETURN,
    X32,
    filter_program,
)


def _verdict(program: bytes, architecture: int, number: int) -> int:
    """What the filter says of a call."""
    steps = list(struct.iter_unpack("=HBBI", program))
    loaded, place = 0, 0
    while True:
        code, if_true, if_false, value = steps[place]
        place += 1
        if code == RETURN:
            return value
        if code == LOAD:
            loaded = {0: number, 4: architecture}[value]
        else:
            is_true = {EQUAL: loaded == value, AT_LEAST: loaded >= value}[code]
            place += if_true if is_true else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_verdicts(machine: str) -> None:
    """What is named is refused, all else is allowed, another machine's numbers never are."""
    program = filter_program(machine)
    column, architecture = ARCHITECTURES[machine]
    refused = {number for number in range(600) if _verdict(program, architecture, number) == REFUSE}
    assert refused == {numbers[column] for numbers in NUMBERS.values()}
    assert _verdict(program, architecture, 0) == ALLOW
    assert _verdict(program, architecture, X32) == REFUSE
    assert _verdict(program, 0x40000003, 0) == REFUSE  # i386


def test_unknown_machine() -> None:
    """Where the numbers are not known there is no filter."""
    assert filter_program("riscv64") == b""
