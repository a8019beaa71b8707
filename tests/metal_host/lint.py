"""A kernel's text checked with real address spaces, by clang as C++ for OpenCL.

Two passes: what the compiler itself refuses, then pointers and references that it would let point
anywhere, whereas Metal wants an address space on each. Metal's own compiler may still refuse more,
and in one place less: here a member function may not pass a field on as `thread T&`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx

from .compiler import HERE, shim, store, stored, version
from .signature import Template, TypedShape, generate
from .source import for_lint, forbidden

__all__ = ["lint", "lint_available"]

_EXTENSIONS = "-all,+cl_khr_fp16,+__opencl_c_generic_address_space,+__cl_clang_function_pointers"
_FLAGS = [
    *("-x", "clcpp", "-cl-std=clc++2021", "-cl-no-stdinc", "-target", "spir64"),
    *("-Xclang", f"-cl-ext={_EXTENSIONS},+__opencl_c_program_scope_global_variables"),
    *("-fsyntax-only", "-w", "-fno-color-diagnostics", "-fno-elide-type", "-I", str(HERE)),
]
_DECLARATION = re.compile(
    r"-(?P<kind>ParmVarDecl|VarDecl|FieldDecl|TypedefDecl|TypeAliasDecl|CStyleCastExpr"
    r"|CXXReinterpretCastExpr|CXXStaticCastExpr) 0x\w+ (?:(?:prev|parent) \w+ )*<.*?> "
    r"(?:(?:line|col|[\w./]+):\d+(?::\d+)? )?(?:(?:implicit|used|referenced) )*"
    r"(?P<name>\w+ )?'(?P<type>[^']*__generic [^']*[*&][^']*)'"
)
_CHOICE = re.compile(r"incompatible operand types \('([^']*)' and '([^']*)'\)")
_POSITION = re.compile(r"(?<=[<\s])([^\s<>:,]+):(\d+):\d+")


def lint_available() -> bool:
    """Whether there is a clang, or the ziglang package, which holds one."""
    return bool(_clang())


def lint(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str,
    inputs: Sequence[TypedShape],
    output_dtypes: Sequence[mx.Dtype],
    template: Template | None = None,
) -> list[str]:
    """What is wrong with a kernel, a line each that begins with file:line; [] if it is clean."""
    kernel = generate(
        *(name, input_names, output_names, source, header, inputs, output_dtypes, template or ())
    )
    code = for_lint(kernel)
    this_file = Path(__file__).read_text()
    found, path = stored(code, shim(), this_file, *_clang(), version(*_clang()))
    if found is None:
        found = "\n".join(_check(code))
        store(path, found)
    return [*forbidden(kernel), *found.splitlines()]


@cache
def _clang() -> tuple[str, ...]:
    """The command of METAL_HOST_CLANG, or clang, or that of the ziglang package."""
    given = os.environ.get("METAL_HOST_CLANG")
    if given:
        return tuple(shlex.split(given))
    path = shutil.which("clang")
    if path:
        return (path,)
    return (sys.executable, "-m", "ziglang", "clang") if find_spec("ziglang") else ()


def _check(code: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.clcpp").write_text(code)
        command = [*_clang(), *_FLAGS, "-Xclang", "-ast-dump", "kernel.clcpp"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode and "error:" not in result.stderr:
        raise RuntimeError(result.stderr)
    rows = [row for row in result.stderr.splitlines() if re.search(r":\d+: error:", row)]
    errors = [row for row in rows if not _is_choice_of_spaces(row)]
    return errors or list(dict.fromkeys(_without_space(result.stdout)))


def _is_choice_of_spaces(error: str) -> bool:
    """Whether it is about `which ? a : b` of one vector type, which OpenCL wants in one space."""
    match = _CHOICE.search(error)
    if not match:
        return False
    one, other = (re.sub(r"\b(?:__\w+|const) ", "", kind) for kind in match.groups())
    return one == other


def _without_space(dump: str) -> Iterator[str]:
    """Declarations and casts in the kernel's own text whose pointers have no address space."""
    file, line = "", 0
    for row in dump.splitlines():
        for word, number in _POSITION.findall(row.partition("'")[0]):  # said where it changes
            if word == "line":
                line = int(number)
            elif word != "col":
                file, line = word, int(number)
        match = _DECLARATION.search(row)
        if not match or file.startswith(str(HERE)):
            continue
        name = (match["name"] or "").strip()
        if match["kind"] == "ParmVarDecl" and not name:
            continue
        written = match["type"].replace("__generic ", "").replace("__private ", "")
        yield f"{file}:{line}: error: {name or 'cast'}: no address space on {written}"
