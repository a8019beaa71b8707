"""A kernel's Metal text -> text that a C++ compiler takes, line for line.

What remains of Metal after these few substitutions is defined in metal_stdlib.h. `#line` in a
header is kept, so that messages name the original file; a text without is called "header" or
"source".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import CompileError
from .signature import ATTRIBUTES, Kernel, Parameter

__all__ = ["ENTRY", "Variable", "for_lint", "forbidden", "to_cpp"]

ENTRY = "host_entry"
_POSITION = {  # attribute -> field of ThreadIndices in runtime.cpp, or a value
    "dispatch_quadgroups_per_threadgroup": "at->full_simdgroups * 8",
    "dispatch_simdgroups_per_threadgroup": "at->full_simdgroups",
    "dispatch_threads_per_threadgroup": "at->full_size",
    "grid_origin": "origin",
    "grid_size": "at->grid",
    "quadgroup_index_in_threadgroup": "at->index / 4",
    "quadgroups_per_threadgroup": "at->simdgroups * 8",
    "simdgroup_index_in_threadgroup": "at->simdgroup",
    "simdgroups_per_threadgroup": "at->simdgroups",
    "thread_execution_width": "32",
    "thread_index_in_quadgroup": "at->index % 4",
    "thread_index_in_simdgroup": "at->lane",
    "thread_index_in_threadgroup": "at->index",
    "thread_position_in_grid": "at->in_grid",
    "thread_position_in_threadgroup": "at->in_group",
    "threadgroup_position_in_grid": "at->group",
    "threadgroups_per_grid": "at->groups",
    "threads_per_grid": "at->grid",
    "threads_per_simdgroup": "32",
    "threads_per_threadgroup": "at->group_size",
}
_PREAMBLE = '#include "metal_stdlib.h"\n'
_LAUNCHER = """
struct ThreadIndices {
  uint in_grid[3], in_group[3], group[3], grid[3], group_size[3], full_size[3], groups[3];
  uint index, lane, simdgroup, simdgroups, full_simdgroups;
};
struct host_buffer {
  void* address;
  template <class T> operator T*() const { return (T*)address; }
};
struct host_scalar {
  void* address;
  template <class T> operator T&() const { return *(T*)address; }
};
extern "C" __attribute__((no_sanitize("thread", "alignment"), visibility("default")))
void %s(void** buffers, const ThreadIndices* at) {
  const uint origin[3] = {0, 0, 0};
  %s(%s);
}
"""
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DROPPED = re.compile(r"^[ \t]*#[ \t]*(?:include|pragma)\b.*$", re.MULTILINE)
_PRAGMA = re.compile(r'_Pragma\s*\(\s*"[^"]*"\s*\)')
_ATTRIBUTE = re.compile(r"\[\[[^\[\]]*\]\]")
_FLOAT = re.compile(
    r"(?<![\w.])((?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(bf|h)?(?![\w.])"
)
_CONST_TWICE = re.compile(r"\b(?:const\s+constant|constant\s+const)\b(?!expr)")
_VARIABLE = re.compile(
    r"(?:alignas\([^)]*\)\s*)?(?<![\w,(<])threadgroup\s+(?P<type>[\w:]+(?:\s*<[^;(){}=]*>)?)\s+"
    r"(?P<names>\w+\s*(?:\[[^\]]*\]\s*)*(?:,\s*\w+\s*(?:\[[^\]]*\]\s*)*)*);"
)
_DOUBLE = re.compile(r"\bdouble\d?\b|(?<![\w.])(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?[lL]\b")
_FORBIDDEN = {
    "threadgroup variable": "threadgroup variable outside of a kernel",
    "double": "Metal has no double",
}
_NAME = re.compile(r"(?P<name>\w+)\s*(?P<dimensions>(?:\[[^\]]*\]\s*)*)")
_LINE = re.compile(r'[ \t]*#[ \t]*line[ \t]+(\d+)(?:[ \t]+"([^"]*)")?')


@dataclass(frozen=True)
class Variable:
    """A threadgroup variable: its type and dimensions as they are written."""

    type: str
    name: str
    dimensions: str


_Declare = Callable[[Variable, int], str]  # how a declaration is written, given a number of its own


def to_cpp(kernel: Kernel) -> str:
    """The C++ text of a shared object whose ENTRY runs one thread.

    Raises:
        CompileError: it contains something forbidden.
    """
    errors = forbidden(kernel)
    if errors:
        raise CompileError("\n".join(errors))
    buffers = iter(range(len(kernel.buffers)))
    arguments = ", ".join(_argument(p, buffers) for p in kernel.parameters)
    text = _CONST_TWICE.sub("const", _translated(kernel, _allocation))
    launcher = _LAUNCHER % (ENTRY, kernel.instance, arguments)
    return f'{_PREAMBLE}{text}#line 1 "launcher"{launcher}'


def for_lint(kernel: Kernel) -> str:
    """The text in C++ for OpenCL, whose threadgroup variables have an address space only."""
    return _PREAMBLE + _translated(kernel, _null_reference)


def forbidden(kernel: Kernel) -> list[str]:
    """One line for each thing that Metal forbids and C++ would let pass."""
    header = f'#line 1 "header"\n{_plain(kernel.header)}'
    body = f'#line 1 "source"\n{_plain(kernel.body)}'
    found = [(header, match, "threadgroup variable") for match in _VARIABLE.finditer(header)]
    found += [
        (text, match, "double") for text in (header, body) for match in _DOUBLE.finditer(text)
    ]
    return [
        f"{_place(text, match.start())}: error: {_FORBIDDEN[kind]}" for text, match, kind in found
    ]


def _translated(kernel: Kernel, declare: _Declare) -> str:
    numbers = iter(range(1000))

    def declarations(match: re.Match[str]) -> str:
        variables = _variables(match)
        lines = match.group().count("\n")
        return " ".join(declare(v, next(numbers)) for v in variables) + "\n" * lines

    parts = {
        "header": _plain(kernel.header),
        "signature": _plain(kernel.opening),
        "source": _VARIABLE.sub(declarations, _plain(kernel.body)),
        "end": _plain(kernel.closing),
    }
    return "".join(f'#line 1 "{name}"\n{text}\n' for name, text in parts.items())


def _plain(text: str) -> str:
    """Without comments, attributes and pragmas, and with C++'s literals; lines stay lines."""
    text = _COMMENT.sub(_blank, text)
    text = _DROPPED.sub("", text)
    text = _PRAGMA.sub("", text)
    text = _ATTRIBUTE.sub(_blank, text)
    return _FLOAT.sub(_literal, text)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def _literal(match: re.Match[str]) -> str:
    """Metal has no double: a literal without suffix is a float."""
    number, suffix = match.groups()
    kind = {"h": "half", "bf": "bfloat"}.get(suffix)
    return f"{kind}({number}f)" if kind else f"{number}f"


def _variables(match: re.Match[str]) -> Iterator[Variable]:
    for name in _NAME.finditer(match["names"]):
        yield Variable(match["type"], name["name"], name["dimensions"].strip())


def _allocation(v: Variable, number: int) -> str:
    array = f"{v.type}{v.dimensions}"
    pointer = f"({v.type} (*){v.dimensions})" if v.dimensions else f"({v.type}*)"
    return (
        f"{v.type} (&{v.name}){v.dimensions} = "
        f"*{pointer}host_threadgroup_memory({number}, sizeof({array}));"
    )


def _null_reference(v: Variable, _: int) -> str:
    pointer = f"(threadgroup {v.type} (*){v.dimensions})"
    return f"threadgroup {v.type} (&{v.name}){v.dimensions} = *{pointer}0;"


def _argument(parameter: Parameter, buffers: Iterator[int]) -> str:
    if parameter.role == "attribute":
        value = _POSITION[parameter.name]
        if ATTRIBUTES[parameter.name] == "uint":
            return value
        return "uint3(" + ", ".join(f"{value}[{i}]" for i in range(3)) + ")"
    kind = "host_scalar" if parameter.type.endswith("&") else "host_buffer"
    return f"{kind}{{buffers[{next(buffers)}]}}"


def _place(text: str, at: int) -> str:
    """file:line of a position, by the #line above it."""
    file, line = "", 0
    for row in text[:at].split("\n"):
        directive = _LINE.match(row)
        if directive:
            file, line = directive[2] or file, int(directive[1]) - 1
        else:
            line += 1
    return f"{file}:{line}"
