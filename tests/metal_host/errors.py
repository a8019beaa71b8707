"""What can be wrong with a kernel: KernelError, and of these CompileError."""

from __future__ import annotations

__all__ = ["CompileError", "KernelError"]


class KernelError(Exception):
    """A kernel breaks a rule or a limit of Metal, or did so when it ran."""


class CompileError(KernelError):
    """A kernel's text does not compile; each line of the message begins with file:line."""
