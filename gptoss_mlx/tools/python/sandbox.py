"""How a process is shut in: bubblewrap on Linux, sandbox-exec on macOS.

Pure functions from the folders that a process may use to the command line that runs it so. What
is shut out is everything else: the network, the user's files, other processes. Limits on memory,
time and disk are not the sandbox's: `guard` watches over them. It does not know what runs.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptoss_mlx.errors import UsageError
from gptoss_mlx.tools.python.seccomp import filter_program

__all__ = [
    "Bubblewrap",
    "Folders",
    "Sandbox",
    "SandboxExec",
    "Unconfined",
    "find_sandbox",
    "sandbox_problem",
]

SANDBOX_EXEC = Path("/usr/bin/sandbox-exec")
SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # in new systems links into /usr
STORES = ("/usr", "/nix/store", "/gnu/store")
# What the dynamic linker, the clock and fonts need; neither users nor secrets.
ETC = ("alternatives", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime")
NO_NESTING = "--disable-userns"  # since bubblewrap 0.8


@dataclass(frozen=True)
class Folders:
    """What a process may use, as paths without symbolic links.

    It may write to `work`, `tmp`, `shm` (shared memory) and `sockets`, and read `readable`.
    """

    work: Path
    tmp: Path
    shm: Path
    sockets: Path
    readable: tuple[Path, ...] = ()


class Sandbox(ABC):
    """A way to run a process."""

    @abstractmethod
    def command(self, argv: Sequence[str], folders: Folders) -> list[str]:
        """The command line that runs `argv` with nothing but `folders`."""

    def inside(self, folders: Folders) -> Folders:
        """The same folders under the names that the process knows them by."""
        return folders

    @property
    def system_calls(self) -> bytes:
        """The filter of system calls that the process is to set for itself; empty is none."""
        return b""


@dataclass(frozen=True)
class Unconfined(Sandbox):
    """No sandbox: the process may do what its user may."""

    def command(self, argv: Sequence[str], folders: Folders) -> list[str]:  # noqa: ARG002
        """`argv` itself."""
        return list(argv)


@dataclass(frozen=True)
class Bubblewrap(Sandbox):
    """Linux namespaces of its own: no network, no other processes, a root with little in it."""

    program: str
    options: tuple[str, ...] = ()

    def inside(self, folders: Folders) -> Folders:
        """The working folder is /mnt/data, as the models were trained."""
        return Folders(
            work=Path("/mnt/data"),
            tmp=Path("/tmp"),
            shm=Path("/dev/shm"),
            sockets=Path("/run/kernel"),
            readable=folders.readable,
        )

    @property
    def system_calls(self) -> bytes:
        """The filter for this machine."""
        return filter_program(platform.machine())

    def command(self, argv: Sequence[str], folders: Folders) -> list[str]:
        """The command; the environment is the caller's to clear."""
        inside = self.inside(folders)
        command = [self.program, *_NAMESPACES, *self.options, *_system_binds(Path("/"))]
        command += ["--proc", "/proc", "--dev", "/dev"]
        for name in ("tmp", "shm", "sockets", "work"):
            command += ["--bind", str(getattr(folders, name)), str(getattr(inside, name))]
        for path in folders.readable:
            command += ["--ro-bind", str(path), str(path)]
        command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(inside.work)]
        return [*command, "--", *argv]


_NAMESPACES = (
    *("--unshare-user", "--unshare-all", "--hostname", "sandbox"),
    *("--cap-drop", "ALL", "--die-with-parent", "--new-session"),
)


def _system_binds(root: Path) -> Iterator[str]:
    """Binds of what programs and their libraries live in, as they are under `root`."""
    for store in STORES:
        yield from ("--ro-bind-try", store, store)
    for name in SYSTEM:
        path = root / name
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), f"/{name}")
        elif path.is_dir():
            yield from ("--ro-bind", str(path), f"/{name}")
    for name in ETC:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")


@dataclass(frozen=True)
class SandboxExec(Sandbox):
    """macOS: a profile that denies what it does not name. The folders keep their names."""

    def command(self, argv: Sequence[str], folders: Folders) -> list[str]:
        """The command; the environment is the caller's to clear."""
        return [str(SANDBOX_EXEC), "-p", profile(folders, Path.home().resolve()), *argv]


# Programs may run, know the machine and each other, and talk to nobody: no network, no services
# but the one that names users, no Apple events, no keychain. Later rules win over earlier ones.
_PROFILE = """\
(version 1)
(deny default)
(allow process-exec)
(allow process-fork)
(allow signal (target same-sandbox))
(allow process-info* (target same-sandbox))
(allow sysctl-read)
(allow ipc-posix-sem)
(allow ipc-posix-shm)
(allow mach-lookup (global-name "com.apple.system.opendirectoryd.libinfo"))
(allow system-socket (socket-domain AF_UNIX))
(allow file-ioctl (literal "/dev/dtracehelper"))
(allow file-write-data (literal "/dev/null") (literal "/dev/zero"))
(allow file-read*)
"""
# Where people and other programs keep what is theirs.
_PRIVATE = (
    "/Users",
    "/Volumes",
    "/Network",
    "/private/tmp",
    "/private/var/tmp",
    "/private/var/folders",
    "/private/var/root",
    "/private/var/run",
    "/Library/Keychains",
    "/Library/Application Support",
    "/Library/Preferences",
)


def profile(folders: Folders, home: Path) -> str:
    """The rules for sandbox-exec; paths must be without symbolic links, as the kernel sees them."""
    writable = (folders.work, folders.tmp, folders.shm, folders.sockets)
    allowed = (*folders.readable, *writable)
    sockets = _rule("subpath", [folders.sockets])
    return _PROFILE + "\n".join(
        (
            f"(deny file-read* {_rule('subpath', [*map(Path, _PRIVATE), home])})",
            # Python walks down to its own files: it may see that these folders are there.
            f"(allow file-read-metadata {_rule('literal', _ancestors(allowed))})",
            f"(allow file-read* {_rule('subpath', allowed)})",
            f"(allow file-write* {_rule('subpath', writable)})",
            f"(allow network-bind network-inbound (local unix-socket {sockets}))",
            f"(allow network-outbound (remote unix-socket {sockets}))",
            "",
        )
    )


def _ancestors(paths: Sequence[Path]) -> list[Path]:
    return sorted({parent for path in paths for parent in path.parents})


def _rule(kind: str, paths: Sequence[Path]) -> str:
    return " ".join(f"({kind} {_quoted(path)})" for path in paths)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def find_sandbox() -> Sandbox:
    """The sandbox of this machine, tried out.

    Raises:
        UsageError: there is none that works; says what to install.
    """
    if sys.platform == "darwin":
        if _works(SandboxExec().command((), Folders(*[Path("/private/tmp/none")] * 4))):
            return SandboxExec()
        raise UsageError(f"{SANDBOX_EXEC} does not work, {_WITHOUT}")
    program = shutil.which("bwrap")
    if program is None:
        raise UsageError(f"bubblewrap is not installed, {_WITHOUT} (apt install bubblewrap)")
    for options in ((NO_NESTING,), ()):
        sandbox = Bubblewrap(program, options)
        if _works([program, *_NAMESPACES, *options, *_system_binds(Path("/")), "--proc", "/proc"]):
            return sandbox
    raise UsageError(
        f"bubblewrap does not work here, {_WITHOUT} "
        "(does this machine or container allow user namespaces? Try: bwrap --unshare-all "
        "--ro-bind / / --proc /proc true)"
    )


_WITHOUT = "and Python runs only in a sandbox unless you give --unsafe-python"


def _works(prefix: Sequence[str]) -> bool:
    try:
        done = subprocess.run([*prefix, "true"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def sandbox_problem() -> str | None:
    """Why Python cannot be shut in on this machine, and what to do; None where it can."""
    try:
        find_sandbox()
    except UsageError as error:
        return str(error)
    return None
