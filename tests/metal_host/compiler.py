"""C++ text -> a shared object, kept in a cache under a hash of all that it depends on."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from gptoss_mlx.vocabulary import cache_folder

from .errors import CompileError

__all__ = [
    "HERE",
    "available",
    "build",
    "lines_of",
    "load_runtime",
    "names_lines",
    "shim",
    "store",
    "stored",
    "version",
]

HERE = Path(__file__).parent
_MIN_GCC = 12  # the first with _Float16 in C++
_COMMON = ["-std=c++17", "-fPIC", "-w"]
# Arithmetic as Metal's safe mode does it: nothing contracted, reassociated or kept in more bits.
_KERNEL = [
    *("-O2", "-fno-strict-aliasing", "-fwrapv", "-fsigned-char", "-ffp-contract=off"),
    *("-fno-math-errno", "-fno-exceptions", "-fno-rtti", "-I", str(HERE)),
]
_RUNTIME = ["-O2", "-U_FORTIFY_SOURCE", "-ftls-model=initial-exec"]
_MAX_ERRORS = 20


def available() -> bool:
    """Whether there is a C++ compiler that can build what runs kernels."""
    try:
        return bool(_compiler())
    except FileNotFoundError:
        return False


def build(code: str, trace: bool) -> Path:
    """The shared object of a kernel.

    Raises:
        CompileError: with the compiler's messages.
    """
    return _shared_object(code, [*_KERNEL, *_flags(trace)], shim())


@cache
def shim() -> str:
    """The text of all headers that a kernel includes."""
    return "".join(path.read_text() for path in sorted(HERE.glob("metal_*.h")))


@cache
def load_runtime() -> ctypes.CDLL:
    """The runtime, loaded where kernels find its functions."""
    code = (HERE / "runtime.cpp").read_text()
    headers = (HERE / "trace.h").read_text()
    path = _shared_object(code, [*_RUNTIME, "-I", str(HERE)], headers)
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def names_lines() -> bool:
    """Whether a trace can say where: not on macOS, which keeps debug information elsewhere."""
    return _line_tool() is not None


def lines_of(library: Path, offsets: list[int]) -> list[str]:
    """The kernel's file:line of each instruction, by debug information; "?" where unknown."""
    tool = _line_tool()
    if not offsets or not tool:
        return ["?"] * len(offsets)
    command = [tool, "-i", "-a", "-e", str(library), *map(hex, offsets)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    frames = re.split(r"^0x[0-9a-f]+\n", output, flags=re.MULTILINE)[1:]
    return [_innermost(frame.splitlines(), library.parent) for frame in frames]


def _line_tool() -> str | None:
    if platform.system() == "Darwin":
        return None
    return shutil.which("addr2line") or shutil.which("llvm-addr2line")


def stored(*parts: str) -> tuple[str | None, Path]:
    """What is in the cache for these parts, and the file where it belongs."""
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    path = _folder() / key
    return (path.read_text("utf-8") if path.exists() else None), path


def store(path: Path, text: str) -> None:
    """Put a text into the cache, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as temporary:
        temporary.write(text)
    Path(temporary.name).replace(path)


@cache
def version(*command: str) -> str:
    """What a compiler says of itself."""
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    return result.stdout


@cache
def _folder() -> Path:
    given = os.environ.get("METAL_HOST_CACHE")
    folder = Path(given) if given else cache_folder() / "metal_host"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@cache
def _compiler() -> tuple[str, ...]:
    """The command of METAL_HOST_CXX, or a g++ that is new enough, or a clang++."""
    given = os.environ.get("METAL_HOST_CXX")
    if given:
        return tuple(shlex.split(given))
    for name in ("g++", "clang++"):
        path = shutil.which(name)
        if path and _is_usable(path):
            return (path,)
    raise FileNotFoundError(f"no g++ >= {_MIN_GCC} and no clang++")


def _is_usable(path: str) -> bool:
    command = [path, "-dumpfullversion", "-dumpversion"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    major = result.stdout.partition(".")[0].strip()
    return major.isdigit() and ("clang" in version(path) or int(major) >= _MIN_GCC)


def _flags(trace: bool) -> list[str]:
    """What depends on the compiler: half rounds after each operation; a traced load stays whole."""
    if "clang" in version(*_compiler()):
        is_x86 = platform.machine() == "x86_64"
        flags = ["-Xclang", "-ffloat16-excess-precision=none"] if is_x86 else []
        whole = ["-O0"]
    else:
        flags = ["-fexcess-precision=16"]
        whole = ["-fno-tree-vectorize", "-fno-tree-sra", "-fno-ipa-sra"]
    if _has_half_instructions():
        flags.append("-march=x86-64-v3")
    return [*flags, "-g1", *whole, "-fsanitize=thread,alignment"] if trace else flags


@cache
def _has_half_instructions() -> bool:
    """Whether this is an x86 of the kind that converts half in hardware."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return {"avx2", "bmi2", "f16c", "fma"} <= words


def _shared_object(code: str, flags: list[str], headers: str) -> Path:
    command = [*_compiler(), *_COMMON, *flags]
    key = "\0".join([code, headers, *command, version(*_compiler()), platform.machine()])
    path = _folder() / (hashlib.sha256(key.encode()).hexdigest()[:32] + ".so")
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = _compile(Path(folder), code, command)
            built.replace(path)
    return path


def _compile(folder: Path, code: str, command: list[str]) -> Path:
    (folder / "kernel.cpp").write_text(code)
    _run([*command, "-c", "kernel.cpp", "-o", "kernel.o"], folder)
    # linked without the sanitizer's flags: its functions are the runtime's
    undefined = ["-undefined", "dynamic_lookup"] if platform.system() == "Darwin" else []
    link = [*_compiler(), "-shared", *undefined, "kernel.o", "-o", "kernel.so", "-lm", "-lpthread"]
    _run(link, folder)
    return folder / "kernel.so"


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "error" in line]
        raise CompileError("\n".join(errors[:_MAX_ERRORS]) or result.stderr)


def _innermost(frames: list[str], folder: Path) -> str:
    """The first frame that is not in the shim: where the kernel itself does it."""
    for frame in frames:
        place = re.sub(r" \(discriminator \d+\)$", "", frame)
        if place.startswith(f"{folder}/"):  # then comes the folder of the build
            place = place.removeprefix(f"{folder}/").partition("/")[2]
        if not place.startswith((f"{HERE}/", "?")):
            return place
    return "?"
