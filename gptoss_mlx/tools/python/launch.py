"""How relay and kernel are started: their folders, environment and command line.

It does not start them, and does not know what is said to them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import site
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gptoss_mlx.errors import UsageError
from gptoss_mlx.tools.python.guard import Guard, Limits
from gptoss_mlx.tools.python.sandbox import Bubblewrap, Folders, Sandbox
from gptoss_mlx.tools.python.scratch import Scratch

__all__ = ["folders_for", "prepare", "short_folder"]

MAX_SOCKET_PATH = 100  # bytes; macOS allows 103, Linux 107
PROGRAM = Path(__file__).resolve().with_name("relay.py")
KERNEL = PROGRAM.with_name("kernel_main.py")
LEAN = (
    "--HistoryManager.enabled=False",
    "--IPCompleter.use_jedi=False",
    "--InteractiveShell.colors=nocolor",
    "--Application.log_level=ERROR",
)


def short_folder() -> Scratch:
    """A new folder of this user's alone, its path short enough for the sockets in it."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        folder = Scratch("gptoss-kernel-", Path(parent))
        if len(os.fsencode(folder.path / "sockets" / "k-5")) <= MAX_SOCKET_PATH:
            return folder
        folder.remove()
    raise UsageError("the folder for temporary files has too long a name: set TMPDIR to another")


def folders_for(work: Path, scratch: Path) -> Folders:
    """The folders of a kernel, those in `scratch` made.

    Raises:
        UsageError: the working folder holds Python itself, which code could then change.
    """
    readable = tuple(dict.fromkeys(_readable()))
    for path in readable:
        if path.is_relative_to(work):
            raise UsageError(f"{work} cannot be Python's working folder: {path} lies in it")
    names = ("tmp", "shm", "sockets")
    made = {name: scratch / name for name in names}
    for folder in made.values():
        folder.mkdir(mode=0o700)
    return Folders(work=work, readable=readable, **made)


def _readable() -> Iterator[Path]:
    """What Python needs: its prefixes, its packages, the two programs. Never a whole home."""
    home = Path.home().resolve()
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    for name in (*prefixes, *package_folders(), PROGRAM, KERNEL):
        path = Path(name).resolve()
        if path.exists() and not home.is_relative_to(path):
            yield path


def package_folders() -> list[str]:
    """Where installed packages are: site-packages, the user's, and the one that has ipykernel."""
    folders = [*site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    found = importlib.util.find_spec("ipykernel")
    if found and found.origin:
        folders.append(str(Path(found.origin).parent.parent))
    return [folder for folder in dict.fromkeys(folders) if Path(folder).is_dir()]


def prepare(
    sandbox: Sandbox,
    folders: Folders,
    scratch: Path,
    pipes: tuple[int, int],
    limits: Limits,
    disk_before: int = 0,
) -> Guard:
    """The process to be started; `pipes` are its stdin and stdout."""
    inside = sandbox.inside(folders)
    setup = {
        "kernel": str(KERNEL),
        "sockets": str(inside.sockets),
        "limits": _resource_limits(limits),
        "system_calls": sandbox.system_calls.hex(),
        "looks_for_parent": not isinstance(sandbox, Bubblewrap),
        "max_text": limits.output + 1,
        "argv": [f"--ipython-dir={inside.tmp}", *LEAN],
    }
    # The file behind the links: they may lead through folders that the sandbox does not show.
    python = str(Path(sys.executable).resolve())
    argv = [python, "-s", "-P", str(PROGRAM), json.dumps(setup)]
    return Guard(
        sandbox.command(argv, folders),
        _environment(inside),
        mark=secrets.token_hex(8),
        pipes=pipes,
        log=scratch / "log",
        folders=(folders.work, scratch),
        limits=limits,
        disk_before=disk_before,
    )


def _resource_limits(limits: Limits) -> dict[str, int]:
    """What the relay sets for itself and the kernel; macOS has no limit on address space."""
    chosen = {"RLIMIT_FSIZE": limits.file, "RLIMIT_CORE": 0}
    return chosen if sys.platform == "darwin" else {"RLIMIT_AS": limits.memory, **chosen}


def _environment(inside: Folders) -> dict[str, str]:
    """All of its environment: nothing of the user's."""
    tmp = str(inside.tmp)
    return {
        "HOME": tmp,
        "IPYTHONDIR": tmp,
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",  # an arena for each thread takes 64 MB of address space
        "MPLCONFIGDIR": tmp,
        "PATH": os.pathsep.join((str(Path(sys.executable).resolve().parent), os.defpath)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(package_folders()),
        "TERM": "dumb",
        "TMPDIR": tmp,
        "USER": "user",
    }
