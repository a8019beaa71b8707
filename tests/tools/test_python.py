"""The python tool: what it shows, what it keeps, how it ends. Most tests need a sandbox."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.tools.python import launch, sandbox
from gptoss_mlx.tools.python.guard import MARK, Limits
from gptoss_mlx.tools.python.kernel_main import bounded
from gptoss_mlx.tools.python.processes import is_alive, marked, tree
from gptoss_mlx.tools.python.relay import reduced
from gptoss_mlx.tools.python.sandbox import sandbox_problem
from gptoss_mlx.tools.python.tool import NO_OUTPUT, PythonTool
from gptoss_mlx.tools.python.transcript import Transcript
from gptoss_mlx.tools.toolbox import Toolbox

PROBLEM = sandbox_problem()
needs_sandbox = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))

Run = Callable[[str], str]


@pytest.fixture(scope="module")
def tool() -> Iterator[PythonTool]:
    """One tool for all that leaves it alive."""
    with closing(PythonTool()) as tool:
        yield tool


@pytest.fixture
def run(tool: PythonTool) -> Run:
    """Run code in it."""
    return lambda code: tool.run("python", code)


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("print('a')", "a\n"),
        ("6 * 7", "42\n"),
        ("print('a', end='')\n6 * 7", "a\n42\n"),
        ("import sys; print('e', file=sys.stderr)", "e\n"),
        ("import os; _ = os.system('echo child')", "child\n"),
        ("print('\\x1b[31mred\\x1b[0m')", "red\n"),
        ("from pathlib import Path; Path.cwd().as_posix()", "'/mnt/data'\n"),
        ('{"code": "print(1 + 1)"}', "2\n"),
        ('{"other": "x"}', "{'other': 'x'}\n"),
        ("x = 1", NO_OUTPUT),
        ("", NO_OUTPUT),
        ("print('  ')", NO_OUTPUT),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="/mnt/data is Linux's")
def test_output(run: Run, code: str, shown: str) -> None:
    """Outputs and results come in their order; nothing is told as the models were trained."""
    assert run(code) == shown


@needs_sandbox
def test_traceback_follows_output(run: Run) -> None:
    """An error comes on a line of its own, without colours."""
    lines = run("print('a', end=''); 1 / 0").splitlines()
    assert lines[0] == "a"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "\x1b" not in "".join(lines)


@needs_sandbox
def test_picture_is_named(run: Run) -> None:
    """A picture is not sent; that there was one is told."""
    code = "from IPython.display import Image; Image(b'\\x89PNG' + bytes(1000), format='png')"
    assert run(code).splitlines()[1] == "[image/png omitted; save it to the working folder]"


@needs_sandbox
def test_input_does_not_hang(run: Run) -> None:
    """Code that asks the user gets an error."""
    assert "does not support input" in run("input('name? ')")


@needs_sandbox
def test_many_messages_are_all_read(run: Run) -> None:
    """Output in thousands of pieces is complete."""
    shown = run("for n in range(3000): print(n, flush=True)")
    assert shown == "".join(f"{n}\n" for n in range(3000))


@needs_sandbox
def test_files_are_the_users(tool: PythonTool, run: Run) -> None:
    """Files go both ways through the working folder."""
    (tool.folder / "in.txt").write_text("from outside")
    assert run("open('out.txt', 'w').write('from inside'); open('in.txt').read()") == (
        "'from outside'\n"
    )
    assert (tool.folder / "out.txt").read_text() == "from inside"


@needs_sandbox
def test_calls_from_threads_that_end() -> None:
    """The kernel outlives the thread that started it."""
    with closing(PythonTool()) as tool:
        for code in ("x = 42", "x"):
            with ThreadPoolExecutor(1) as pool:
                shown = pool.submit(tool.run, "python", code).result()
        assert shown == "42\n"


@needs_sandbox
def test_own_folder_is_kept(tmp_path: Path) -> None:
    """A folder that is given stays as it is at the end; scratch files do not."""
    with closing(PythonTool(tmp_path)) as tool:
        tool.run("python", "open('kept', 'w').close()")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@needs_sandbox
def test_another_conversation() -> None:
    """It finds neither the variables nor the files of the last one."""
    with closing(PythonTool()) as tool:
        tool.run("python", "x = 1; open('f', 'w').close()")
        first = tool.folder
        tool.reset()
        assert not first.exists()
        said = tool.run("python", "import os; print(os.listdir()); x")
        assert said.startswith("[]\n")
        assert "NameError" in said


@needs_sandbox
def test_fresh_folder_is_removed() -> None:
    """Without one, the folder is the tool's, and goes with it; closing twice is harmless."""
    tool = PythonTool()
    assert tool.folder.is_dir()
    tool.close()
    tool.close()
    assert not tool.folder.exists()
    with pytest.raises(ToolError, match="closed"):
        tool.run("python", "1")


@needs_sandbox
def test_nothing_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder is made before it is needed, and none is left, not even by a failed start."""
    monkeypatch.setattr(launch.tempfile, "tempdir", str(tmp_path))
    with closing(PythonTool()) as tool:
        assert list(tmp_path.iterdir()) == []
        tool.run("python", "import os; os.makedirs('a/b'); os.chmod('a', 0o300)")
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(launch, "PROGRAM", tmp_path / "none")
    with closing(PythonTool()) as tool, pytest.raises(ToolError):
        tool.run("python", "1")
    assert list(tmp_path.iterdir()) == []
    unused = PythonTool()
    unused.close()
    with pytest.raises(ToolError, match="closed"):
        assert unused.folder


def test_folders_that_cannot_be() -> None:
    """A folder that is none is refused, and at the first call one with Python itself in it."""
    with pytest.raises(UsageError, match="not a folder"):
        PythonTool(Path(__file__), sandboxed=False)
    tool = PythonTool(Path(launch.PROGRAM).parent, sandboxed=False)
    with closing(tool), pytest.raises(UsageError, match="lies in it"):
        tool.run("python", "1")


def test_no_sandbox_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can shut it in there is no tool, unless one is asked for without."""
    monkeypatch.setattr(sandbox.sys, "platform", "linux")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"apt install bubblewrap|--unsafe-python"):
        PythonTool()
    PythonTool(sandboxed=False).close()


def test_home_is_never_readable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A prefix that holds the user's home is not shown; Python's packages are."""
    before = launch.folders_for(tmp_path, _made(tmp_path / "a")).readable
    monkeypatch.setenv("HOME", str(Path(sys.prefix).resolve() / "home"))
    after = launch.folders_for(tmp_path, _made(tmp_path / "b")).readable
    assert set(before) - set(after) == {Path(sys.prefix).resolve()}
    assert any(path.name == "site-packages" for path in after)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_socket_paths_are_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where temporary files have too long a path for sockets, /tmp is used; it is private."""
    long = _made(tmp_path / ("x" * 100))
    monkeypatch.setattr(launch.tempfile, "tempdir", str(long))
    folder = launch.short_folder()
    assert not folder.path.is_relative_to(long)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert list(long.iterdir()) == []
    folder.remove()


@needs_sandbox
def test_kernel_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel that ends at its start is reported with its last words."""
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no kernel here')")
    monkeypatch.setattr(launch, "PROGRAM", program)
    with closing(PythonTool()) as tool, pytest.raises(ToolError, match=r"1\): no kernel here"):
        tool.run("python", "1")


def test_preview() -> None:
    """A person sees the code, however it was sent, and its first line; it is not harmless."""
    with closing(PythonTool(sandboxed=False)) as tool:
        preview = tool.preview("python", '{"code": "\\nimport os\\nos.remove(1)"}')
        long = tool.preview("python", "x" * 100)
    assert preview.title == "run Python: import os"
    assert preview.body == "\nimport os\nos.remove(1)"
    assert preview.language == "python"
    assert not preview.is_harmless
    assert len(long.title) < 80


@pytest.mark.parametrize("end", ["\r", "\r\n", *"\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"])
@needs_sandbox
def test_lines_are_shown_as_they_run(tool: PythonTool, run: Run, end: str) -> None:
    """What begins a line for Python or IPython begins one in the preview."""
    code = f"# harmless{end}print('ran')\n# more{end}!echo ran"
    assert tool.preview("python", code).body == "# harmless\nprint('ran')\n# more\n!echo ran"
    assert run(code).split() == ["ran", "ran"]


def test_what_is_not_seen_is_shown() -> None:
    """Control characters, overrides of the direction and invisible ones appear as escapes."""
    with closing(PythonTool(sandboxed=False)) as tool:
        preview = tool.preview("python", "a\x1b[8m\tb\x08\x9b\u202e\u2066\u200b\ud800é")
    assert preview.body == r"a\x1b[8m" "\t" r"b\x08\x9b\u202e\u2066\u200b" "\ufffdé"
    assert preview.title == f"run Python: {preview.body}"


@needs_sandbox
def test_halves_of_pairs(run: Run) -> None:
    """Characters that nothing can write are replaced, in the code as in what it shows."""
    assert run("ascii('\udc80')") == "\"'\\\\ufffd'\"\n"
    assert run("print('a\\ud800b')") == "a?b\n"


@needs_sandbox
def test_death_between_calls() -> None:
    """A kernel that ends after its call is reported by the next one; the one after works."""
    with closing(PythonTool()) as tool, Toolbox([tool]) as box:
        box.run("python", "import os, threading; threading.Timer(0.2, os._exit, [5]).start()")
        time.sleep(1.5)
        assert box.run("python", "1").startswith("[ERROR] the Python kernel has ended: it exited")
        assert box.run("python", "1") == "1\n"


@needs_sandbox
def test_limits_hold_between_calls() -> None:
    """What a thread does after the call is watched, too."""
    with closing(PythonTool(limits=Limits(disk=20 << 20))) as tool:
        code = "with open(f'{n}', 'wb') as f: f.write(bytes(1 << 20))"
        tool.run(
            "python",
            "import threading\ndef fill():\n    for n in range(200):\n"
            f"        {code}\nthreading.Thread(target=fill).start()",
        )
        time.sleep(1.5)
        with pytest.raises(ToolError, match="GiB to disk"):
            tool.run("python", "1")


@needs_sandbox
def test_close_ends_a_call() -> None:
    """Closing from another thread ends a call that runs, soon and with an error."""
    tool = PythonTool()
    tool.run("python", "1")
    timer = threading.Timer(0.3, tool.close)
    timer.start()
    began = time.monotonic()
    with pytest.raises(ToolError, match="the tool was closed"):
        tool.run("python", "while True: pass")
    assert time.monotonic() - began < 2
    timer.join()
    assert not tool.folder.exists()


@needs_sandbox
def test_ctrl_c_interrupts(run: Run) -> None:
    """Ctrl-C stops the code and goes on to the caller; variables are kept."""
    run("kept = 'yes'")
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        run("while True: pass")
    assert run("kept") == "'yes'\n"


@needs_sandbox
def test_ctrl_c_on_code_that_ignores_it() -> None:
    """Ctrl-C goes on to the caller even so; the next call is told that the variables are lost."""
    with closing(PythonTool(limits=Limits(grace=0.3))) as tool:
        tool.run("python", "1")
        threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            tool.run("python", "import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass")
        with pytest.raises(ToolError, match=r"did not stop .* variables are lost"):
            tool.run("python", "1")
        assert tool.run("python", "1") == "1\n"


@needs_sandbox
def test_forged_traffic(run: Run) -> None:
    """Nonsense that code sends the relay in the kernel's name is passed over."""
    shown = run(
        "session, socket = get_ipython().kernel.session, get_ipython().kernel.iopub_socket\n"
        "for parent in ([1], None, 'x', {'msg_id': []}):\n"
        "    message = session.msg('stream', content={'text': 'forged'})\n"
        "    session.send(socket, {**message, 'parent_header': parent})\n"
        "print('real')"
    )
    assert shown == "real\n"


def test_unconfined_works_and_ends() -> None:
    """Without a sandbox it runs as well, in its folder, and takes its daemons along."""
    with closing(PythonTool(sandboxed=False, limits=Limits(grace=0.5), timeout=20)) as tool:
        assert tool.run("python", "import os; print(os.getcwd())") == f"{tool.folder}\n"
        tool.run(
            "python",
            "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
            "        os.execv('/bin/sh', ['sh', '-c', 'while :; do sleep 1; done'])\n"
            "    os._exit(0)",
        )
        mark = tool.run("python", f"print(os.environ['{MARK}'])").strip()
        assert "SSH_AUTH_SOCK" not in tool.run("python", "print(dict(os.environ))")
        before = marked(MARK, mark)
        assert len(before) >= 2
    assert not any(is_alive(process) for process in before)


@pytest.mark.parametrize("sandboxed", [pytest.param(True, marks=needs_sandbox), False])
def test_killed_parent(sandboxed: bool, tmp_path: Path) -> None:
    """When the process that owns the tool is killed, the kernel ends by itself."""
    code = (
        "import time; from gptoss_mlx.tools.python.tool import PythonTool\n"
        f"tool = PythonTool(sandboxed={sandboxed}); tool.run('python', '1')\n"
        "print('started', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody cleans up here
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"started\n"
        kernel = tree(owner.pid)[1:]
        assert kernel
        owner.kill()
    deadline = time.monotonic() + 10
    while any(is_alive(process) for process in kernel):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_import_is_light() -> None:
    """Importing the tool loads nothing heavy: that comes with the first call."""
    code = (
        "import sys, gptoss_mlx.tools.python.tool\n"
        "print({'zmq', 'jupyter_client', 'ipykernel', 'psutil'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("kind", "content", "shown"),
    [
        ("stream", {"text": "x" * 20}, ("stream", "x" * 10)),
        ("stream", {}, ("stream", "")),
        ("stream", {"text": 5}, ("stream", "5")),
        ("error", {"traceback": ["a", "b"]}, ("error", "a\nb")),
        ("error", {"traceback": "no list"}, None),
        ("error", {"traceback": [1, None]}, ("error", "1\nNone")),
        ("execute_result", {"data": {"text/plain": "42"}}, ("result", "42")),
        ("execute_result", {"data": ["no", "dict"]}, ("result", "")),
        ("display_data", {"data": {"image/png": ""}}, ("result", "[image/png")),
        ("unknown", {"text": "x"}, None),
    ],
)
def test_reduced_messages(
    kind: str, content: dict[str, object], shown: tuple[str, str] | None
) -> None:
    """Of what the kernel sends the relay passes on bounded text, whatever it is that came."""
    assert reduced(kind, content, 10) == shown


def test_transcript_is_cut() -> None:
    """What is kept is cut at the limit, and more is noticed; what is no stream has its own line."""
    transcript = Transcript(7)
    transcript.add("stream", "1234")
    transcript.add("result", "6")
    assert not transcript.is_full
    transcript.add("error", "8")
    assert transcript.is_full
    assert transcript.text == "1234\n6\n"


def test_bounded_messages() -> None:
    """What the kernel sends is cut where it begins; pictures are left out, their kind is not."""
    assert bounded({"text": "x" * 9, "n": 1}, 5) == {"text": "xxxxx", "n": 1}
    assert bounded({"traceback": ["a" * 9, "b"]}, 5) == {"traceback": ["aaaaa"]}
    data = {"text/plain": "y" * 9, "image/png": "z" * 9}
    assert bounded({"data": data}, 5) == {"data": {"text/plain": "yyyyy", "image/png": ""}}
    assert bounded(None, 5) is None
