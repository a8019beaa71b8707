"""The text that MLX puts around the body of a custom kernel: template, name, parameters.

MLX decides what to declare by searching the body, not the header. test_signature.py holds the
result against what MLX itself generates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

__all__ = ["ATTRIBUTES", "Kernel", "Parameter", "Template", "TypedShape", "generate"]

Template = Sequence[tuple[str, "int | bool | mx.Dtype"]]
TypedShape = tuple[mx.Dtype, Sequence[int]]
Role = Literal["input", "shape", "strides", "ndim", "output", "attribute"]

# Smaller inputs are declared in the constant address space.
_MIN_DEVICE_SIZE = 8
_TYPES = {
    "bool": "bool",
    "bool_": "bool",
    "float16": "float16_t",
    "bfloat16": "bfloat16_t",
    "float32": "float",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
# Every attribute that MLX knows, in its order, with the type that it declares.
ATTRIBUTES = {
    "dispatch_quadgroups_per_threadgroup": "uint",
    "dispatch_simdgroups_per_threadgroup": "uint",
    "dispatch_threads_per_threadgroup": "uint3",
    "grid_origin": "uint3",
    "grid_size": "uint3",
    "quadgroup_index_in_threadgroup": "uint",
    "quadgroups_per_threadgroup": "uint",
    "simdgroup_index_in_threadgroup": "uint",
    "simdgroups_per_threadgroup": "uint",
    "thread_execution_width": "uint",
    "thread_index_in_quadgroup": "uint",
    "thread_index_in_simdgroup": "uint",
    "thread_index_in_threadgroup": "uint",
    "thread_position_in_grid": "uint3",
    "thread_position_in_threadgroup": "uint3",
    "threadgroup_position_in_grid": "uint3",
    "threadgroups_per_grid": "uint3",
    "threads_per_grid": "uint3",
    "threads_per_simdgroup": "uint",
    "threads_per_threadgroup": "uint3",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of the kernel: a buffer, numbered in order, or an attribute of the thread."""

    name: str
    type: str
    role: Role
    of: int = 0  # which input or output it is or belongs to


@dataclass(frozen=True)
class Kernel:
    """A kernel's text in the parts that MLX joins, and what it says of the parameters."""

    name: str
    header: str
    opening: str
    body: str
    closing: str
    instance: str  # how it is called, template arguments included
    parameters: tuple[Parameter, ...]

    @property
    def source(self) -> str:
        """All of the text, as MLX gives it to Metal's compiler."""
        return self.header + self.opening + self.body + self.closing

    @property
    def buffers(self) -> list[Parameter]:
        """The parameters that are buffers, by their index."""
        return [p for p in self.parameters if p.role != "attribute"]


def generate(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    body: str,
    header: str,
    inputs: Sequence[TypedShape],
    output_dtypes: Sequence[mx.Dtype],
    template: Template = (),
    atomic_outputs: bool = False,
) -> Kernel:
    """The kernel that MLX would compile for a call with these inputs and template arguments."""
    arguments = "<" + ", ".join(_template_value(value) for _, value in template) + ">"
    function = _function_name(name, arguments if template else "", inputs, output_dtypes)
    parameters = [
        *_input_parameters(input_names, inputs, body),
        *_output_parameters(output_names, output_dtypes, atomic_outputs),
    ]
    num_buffers = len(parameters)
    parameters += [Parameter(a, t, "attribute") for a, t in ATTRIBUTES.items() if a in body]
    declared = [
        f"  {p.type} {p.name} [[{f'buffer({i})' if i < num_buffers else p.name}]]"
        for i, p in enumerate(parameters)
    ]
    opening = f"[[kernel]] void {function}(\n" + ",\n".join(declared) + ") {\n"
    closing, instance = "\n}\n", function
    if template:
        declarations = ", ".join(f"{_template_kind(value)} {key}" for key, value in template)
        opening = f"template <{declarations}>\n" + opening
        instance = function + arguments
        closing += (
            f'\ntemplate [[host_name("{function}")]] [[kernel]] decltype({instance}) {instance};\n'
        )
    return Kernel(name, header, opening, body, closing, instance, tuple(parameters))


def _function_name(
    name: str, arguments: str, inputs: Sequence[TypedShape], output_dtypes: Sequence[mx.Dtype]
) -> str:
    parts = ["custom_kernel_" + name]
    if arguments:
        flat = arguments.replace(", ", "_").replace("-", "_")
        parts.append(flat.replace("<", "_").replace(">", ""))
    for dtype, shape in inputs:
        small = "c" if math.prod(shape) < _MIN_DEVICE_SIZE else ""
        parts.append(_type_name(dtype) + (small if shape else "s"))
    return "_".join([*parts, *map(_type_name, output_dtypes)])


def _input_parameters(
    names: Sequence[str], inputs: Sequence[TypedShape], body: str
) -> list[Parameter]:
    parameters: list[Parameter] = []
    for i, (name, (dtype, shape)) in enumerate(zip(names, inputs, strict=True)):
        space = "constant" if math.prod(shape) < _MIN_DEVICE_SIZE else "device"
        pointer = "*" if shape else "&"
        declared = f"const {space} {_type_name(dtype)}{pointer}"
        parameters.append(Parameter(name, declared, "input", i))
        extras: list[tuple[Role, str]] = [
            ("shape", "const constant int*"),
            ("strides", "const constant int64_t*"),
            ("ndim", "const constant int&"),
        ]
        for role, declared in extras:
            if shape and f"{name}_{role}" in body:
                parameters.append(Parameter(f"{name}_{role}", declared, role, i))
    return parameters


def _output_parameters(
    names: Sequence[str], dtypes: Sequence[mx.Dtype], atomic: bool
) -> list[Parameter]:
    types = [f"atomic<{_type_name(d)}>" if atomic else _type_name(d) for d in dtypes]
    return [
        Parameter(name, f"device {declared}*", "output", i)
        for i, (name, declared) in enumerate(zip(names, types, strict=True))
    ]


def _template_value(value: int | bool | mx.Dtype) -> str:
    return str(int(value)) if isinstance(value, int) else _type_name(value)


def _template_kind(value: int | bool | mx.Dtype) -> str:
    if isinstance(value, bool):
        return "bool"
    return "int" if isinstance(value, int) else "typename"


def _type_name(dtype: mx.Dtype) -> str:
    return _TYPES[str(dtype).rsplit(".", 1)[-1]]
