"""What code in the sandbox tries in vain, each time with a call afterwards that works."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.python import launch
from gptoss_mlx.tools.python.guard import MARK, Limits
from gptoss_mlx.tools.python.processes import is_alive
from gptoss_mlx.tools.python.sandbox import sandbox_problem
from gptoss_mlx.tools.python.seccomp import ARCHITECTURES, NUMBERS, filter_program
from gptoss_mlx.tools.python.tool import PythonTool

PROBLEM = sandbox_problem()
pytestmark = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="of Linux's namespaces")
MIB = 1 << 20
SMALL = Limits(memory=1 << 30, processes=20, disk=100 * MIB, file=50 * MIB, output=2000, grace=2.0)

Run = Callable[[str], str]


def _runner(tool: PythonTool) -> Run:
    def run(code: str) -> str:
        return tool.run("python", code)

    return run


@pytest.fixture(scope="module")
def tool() -> Iterator[PythonTool]:
    """One tool with limits that are reached soon; a kernel that ends is followed by another."""
    with closing(PythonTool(timeout=5.0, limits=SMALL)) as tool:
        yield tool


@pytest.fixture
def run(tool: PythonTool) -> Iterator[Run]:
    """Run code; afterwards, whatever it did, the next call works and soon."""
    yield _runner(tool)
    assert _runner(tool)("print(6 * 7)") == "42\n"


@pytest.fixture
def hasty() -> Iterator[Run]:
    """The same for code that uses up its time, which is a second here."""
    with closing(PythonTool(timeout=1.0, limits=SMALL)) as tool:
        _runner(tool)("kept = 1")
        yield _runner(tool)
        assert _runner(tool)("print(6 * 7)") == "42\n"


OURS: set[str] = set()  # marks of this process's kernels: other tests may run beside these


class MarkedGuard(launch.Guard):
    """Notes its mark."""

    def __init__(self, *args: Any, mark: str, **options: Any) -> None:
        OURS.add(mark)
        super().__init__(*args, mark=mark, **options)


@pytest.fixture(autouse=True, scope="module")
def marks() -> Iterator[None]:
    """Kernels of this module can be told from others."""
    with patch.object(launch, "Guard", MarkedGuard):
        yield


def _survivors() -> list[psutil.Process]:
    """Processes of all kernels that there are of ours."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) in OURS and is_alive(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_no_network_by_address(run: Run) -> None:
    """A server of this very machine cannot be reached, by its loopback or any other address."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        shown = run(
            "import socket\n"
            f"for address in ('127.0.0.1', '{_own_address()}', '1.1.1.1'):\n"
            "    try:\n"
            f"        socket.create_connection((address, {port}), timeout=2)\n"
            "        print('reached')\n"
            "    except OSError:\n"
            "        print('refused')\n"
        )
        with pytest.raises(TimeoutError):
            server.accept()
    assert shown == "refused\n" * 3


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_no_names(run: Run) -> None:
    """Names are not looked up."""
    assert "gaierror" in run("import socket; socket.getaddrinfo('example.com', 80)")


def test_no_sockets_of_others(run: Run, tmp_path: Path) -> None:
    """A unix socket in a folder of the host, or in Linux's abstract space, cannot be reached."""
    path = tmp_path / "s"
    names = [str(path)] + ([f"\0{path}"] if sys.platform == "linux" else [])
    for name in names:
        with closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(name)
            server.listen()
            with closing(socket.socket(socket.AF_UNIX)) as probe:
                probe.connect(name)
            shown = run(f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})")
            assert "Error" in shown.splitlines()[-1]


def test_no_reading_outside(run: Run, tmp_path: Path) -> None:
    """The user's files, the machine's secrets and other temporary folders are not there."""
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    places = [secret, Path.home() / ".bashrc", Path("/etc/passwd"), Path("/etc/shadow")]
    shown = run(
        f"for path in {[*map(str, places), f'/proc/{os.getpid()}/environ']}:\n"
        "    try:\n"
        "        print(open(path).read())\n"
        "    except OSError:\n"
        "        print('refused')\n"
    )
    assert shown == "refused\n" * 5


@LINUX
def test_home_is_empty(run: Run) -> None:
    """Of the user's home nothing is seen but the way to Python."""
    shown = run(
        f"import os; home = {str(Path.home())!r}\nprint(os.path.exists(home) and os.listdir(home))"
    )
    seen = shown.strip()
    prefixes = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    ways = {p.relative_to(Path.home()).parts[0] for p in prefixes if p.is_relative_to(Path.home())}
    assert seen in ("False", "[]", str(list(ways)))


@LINUX
def test_no_environment_of_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its own environment nor process 1's holds what the user's does."""
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    shown = run(
        "import os, pathlib\n"
        "print(dict(os.environ))\n"
        "for path in pathlib.Path('/proc').glob('[0-9]*/environ'):\n"
        "    try: print(path.read_bytes())\n"
        "    except OSError: print('refused')"
    )
    assert "PATH" in shown
    assert "hunter2" not in shown
    assert "SECRET" not in shown


def test_environment_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that starts while there are secrets in the environment does not get them."""
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    with closing(PythonTool()) as tool:
        assert tool.run("python", "import os; print('SECRET_TOKEN' in os.environ)") == "False\n"


def test_no_writing_outside(run: Run, tmp_path: Path) -> None:
    """Nothing is written to folders of the host, Python's own among them."""
    victim = tmp_path / "victim.txt"
    victim.write_text("intact")
    shown = run(
        f"for path in ({str(victim)!r}, {sys.prefix + '/evil.py'!r}, {socket.__file__!r},\n"
        "             '/evil', '/usr/evil', '/etc/evil', '/root/evil'):\n"
        "    try:\n"
        "        open(path, 'a').write('x')\n"
        "        print('written', path)\n"
        "    except OSError:\n"
        "        print('refused')\n"
    )
    assert shown == "refused\n" * 7
    assert victim.read_text() == "intact"


@LINUX
def test_no_mounts(run: Run) -> None:
    """It has no rights to mount anything, in no user namespace of its own either."""
    shown = run(
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.unshare(0x10000000 | 0x20000)\n"
        "print(libc.mount(b'x', b'/mnt/data', b'tmpfs', 0, None))"
    )
    assert shown == "-1\n"


def test_links_do_not_lead_out(run: Run, tool: PythonTool) -> None:
    """A symbolic link in the working folder leads nowhere, and removing it removes only it."""
    outside = Path(__file__)
    shown = run(f"import os; os.symlink({str(outside)!r}, 'link'); print(os.path.exists('link'))")
    assert shown == "False\n"
    assert (tool.folder / "link").is_symlink()


def test_fork_bomb(run: Run) -> None:
    """Processes without end are ended, all of them."""
    with pytest.raises(ToolError, match="more than 20 processes"):
        run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass")
    assert _survivors() == []


def test_ten_gigabytes(run: Run) -> None:
    """An allocation of 10 GB fails, and costs nothing else."""
    run("kept = 'yes'")
    assert "MemoryError" in run("x = bytearray(10 * 10**9)")
    assert run("kept") == "'yes'\n"


def test_memory_of_many(run: Run) -> None:
    """Children that take too much only together are ended."""
    with pytest.raises(ToolError, match="more than 1 GiB of memory"):
        run(
            "import os, time\n"
            "for _ in range(8):\n"
            "    if os.fork() == 0:\n"
            "        x = bytearray(b'x') * (200 << 20); time.sleep(60)\n"
            "time.sleep(60)"
        )
    assert _survivors() == []


@LINUX
def test_removed_files(run: Run) -> None:
    """Open files that are in no folder any more count as well."""
    with pytest.raises(ToolError, match=r"more than 0.0977 GiB to disk"):
        run(
            "import os, time\n"
            "held = [open(f'/dev/shm/{n}', 'wb') for n in range(4)]\n"
            "for file in held: os.unlink(file.name); file.write(bytes(40 << 20))\n"
            "time.sleep(60)"
        )


@LINUX
@pytest.mark.skipif(
    not filter_program(platform.machine()), reason="no filter of system calls for this machine"
)
def test_refused_system_calls(run: Run) -> None:
    """Memory that no process and no folder has, and what honest code does without, is refused."""
    column = ARCHITECTURES[platform.machine()][0]
    numbers = {name: found[column] for name, found in NUMBERS.items()}
    shown = run(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"for name, number in {numbers}.items():\n"
        "    ctypes.set_errno(0)\n"
        "    print(name, libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno())"
    )
    assert shown.splitlines() == [f"{name} -1 {errno.EPERM}" for name in numbers]


@LINUX
def test_honest_sharing(run: Run) -> None:
    """Python's shared memory, locks and processes work."""
    shown = run(
        "import multiprocessing, multiprocessing.shared_memory as shared\n"
        "context = multiprocessing.get_context('fork')\n"
        "with context.Pool(2) as pool: print(pool.map(abs, [-1, -2]))\n"
        "block = shared.SharedMemory(create=True, size=8); block.buf[0] = 7\n"
        "print(block.buf[0]); block.close(); block.unlink()\n"
        "with context.Lock(): print('locked')"
    )
    assert shown.splitlines()[-3:] == ["[1, 2]", "7", "locked"]


@pytest.mark.parametrize(
    "code",
    [
        "while True: print('spam' * 100)",
        "while True: print('x', end='', flush=True)",
        "print('x' * 10**8)\nwhile True: pass",
        "import os\nwhile True: os.write(1, b'spam' * 1000)",
    ],
)
def test_infinite_output(run: Run, code: str) -> None:
    """Output without end is cut, and the code interrupted; variables are kept."""
    run("kept = 'yes'")
    shown = run(code)
    assert shown.endswith("[interrupted after 2,000 characters of output]")
    assert len(shown) < 2100
    assert run("kept") == "'yes'\n"


def test_huge_results(run: Run) -> None:
    """A result or an error of 10 MB is cut as it is sent."""
    for code in ("'x' * 10**7", "raise ValueError('x' * 10**7)"):
        shown = run(code)
        assert shown.endswith(
            (  # whether it is done by then is a matter of luck
                "[interrupted after 2,000 characters of output]",
                "[cut after 2,000 characters of output]",
            )
        )
        assert len(shown) < 2100


@pytest.mark.parametrize("loop", ["while True: pass", "10 ** 10 ** 10"])
def test_infinite_loop(hasty: Run, loop: str) -> None:
    """A loop is interrupted when its time is up; what it showed is told, variables are kept."""
    with pytest.raises(ToolError, match=r"longer than 1 s .* kept.*\nbegun"):
        hasty(f"import time; print('begun', flush=True); time.sleep(0.2)\n{loop}")
    assert hasty("kept") == "1\n"


def test_endless_child(hasty: Run) -> None:
    """A program that runs in the foreground is interrupted as well."""
    with pytest.raises(ToolError, match="variables are kept"):
        hasty("import os; os.system('sleep 1000')")
    assert hasty("kept") == "1\n"


@pytest.mark.parametrize(
    "code",
    [
        "import time\nwhile True:\n    try: time.sleep(9)\n    except KeyboardInterrupt: pass",
        "import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass",
        "sum(iter(int, 1))",
    ],
)
def test_loop_that_ignores_interrupts(hasty: Run, code: str) -> None:
    """What does not stop is killed; the error says that variables are lost, and they are."""
    with pytest.raises(ToolError, match=r"did not stop when interrupted.*All variables are lost"):
        hasty(code)
    assert "NameError" in hasty("kept")


def test_exit(run: Run) -> None:
    """A kernel that exits is reported, and followed by a new one."""
    with pytest.raises(ToolError, match=r"exited by itself \(code 3\)"):
        run("import os; os._exit(3)")


def test_kill_everything(run: Run) -> None:
    """Killing all that can be reached reaches no process of the host."""
    with psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        with pytest.raises(ToolError, match="exited by itself"):
            run(
                "import os\n"
                f"for pid in (-1, 1, os.getppid(), {bystander.pid}, os.getpid()):\n"
                "    try: os.kill(pid, 9)\n"
                "    except OSError: pass"
            )
        assert bystander.poll() is None
        bystander.kill()


def test_child_left_behind() -> None:
    """A daemon outlives the call that made it, but not the tool."""
    others = set(_survivors())
    with closing(PythonTool(limits=SMALL)) as tool:
        _runner(tool)(
            "import os, time\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            "        os.execv('/bin/sh', ['sh', '-c', 'echo up > up; while :; do sleep 1; done'])\n"
            "    os._exit(0)\n"
        )
        deadline = time.monotonic() + 5
        while not (tool.folder / "up").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert _runner(tool)("print(1)") == "1\n"
        own = set(_survivors()) - others
        assert "sh" in {process.name() for process in own}
    assert not any(is_alive(process) for process in own)


def test_full_disk(run: Run, tool: PythonTool) -> None:
    """One large file fails; many small ones end the kernel."""
    assert "File too large" in run("with open('big', 'wb') as f: f.write(bytes(60 << 20))")
    (tool.folder / "big").unlink()
    with pytest.raises(ToolError, match="GiB to disk"):
        run("n = 0\nwhile True:\n    open(f'{n}', 'wb').write(bytes(1 << 20)); n += 1")
    assert shutil.disk_usage(tool.folder).free > 0
    for path in tool.folder.iterdir():
        path.unlink()


def test_disk_filled_twice() -> None:
    """After the disk was filled there is room once more, but not for ever."""
    fill = (
        "import time; n = 0\nwhile True:\n"
        "    open(f'{now}-{n}', 'wb').write(bytes(1 << 20)); n += 1; time.sleep(0.02)"
    )
    with closing(PythonTool(limits=replace(SMALL, disk=30 * MIB))) as tool:
        for now in "ab":
            assert _runner(tool)("1") == "1\n"
            with pytest.raises(ToolError, match="GiB to disk"):
                _runner(tool)(f"now = {now!r}\n{fill}")
        with pytest.raises(ToolError, match="GiB to disk"):
            _runner(tool)("import time; time.sleep(9)")


@LINUX
@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_full_scratch(run: Run, folder: str) -> None:
    """The same holds for the other folders that it may write."""
    with pytest.raises(ToolError, match="GiB to disk"):
        run(f"n = 0\nwhile True:\n    open(f'{folder}/{{n}}', 'wb').write(bytes(1 << 20)); n += 1")


def test_state_is_kept(run: Run) -> None:
    """Variables, imports and files live from call to call."""
    run("import math\nx = 6")
    run("def f(y): return math.floor(x * y)\nopen('note', 'w').write(str(f(7)))")
    assert run("print(f(7), open('note').read())") == "42 42\n"
