"""The ranks of DESIGN: a module imports only from ranks below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gptoss_mlx

PACKAGE = Path(gptoss_mlx.__path__[0])
RANKS: dict[str, int] = {
    "config": 0,
    "errors": -1,  # beneath everything
    "paths": 0,
    "vocabulary": 0,
    "bench": 10,
    "ceiling": 1,
    "chips": 0,
    "doctor": 10,
    "fit": 3,
    "convert": 1,
    "demo": 1,
    "hub": 1,
    "kernels": 1,
    "sequence": 1,
    "speculation": 2,
    "metal": 1,
    "tokenizer": 1,
    "cache": 3,
    "memory": 2,
    "generation": 2,
    "grammar": 2,
    "sampler": 2,
    "segment": 2,
    "store": 2,
    "weights": 2,
    "library": 3,
    "branches": 4,
    "model": 4,
    "prefix": 5,
    "harmony": 4,
    "models": 5,
    "tools": 5,
    "installation": 6,
    "persistence": 6,
    "runner": 6,
    "scheduler": 5,
    "core": 7,
    "engine": 8,
    "chat": 9,
    "tune": 9,
    "conversations": 9,
    "server": 10,
    "terminal": 10,
    "cli": 11,
    "__main__": 12,
}
# The demo is data that rank 1 unpacks; the scripts that made and measure it use everything.
DEMO_SCRIPTS = 10
ONLY_IN: dict[str, tuple[str, ...]] = {
    "click": ("cli",),
    "huggingface_hub": ("hub",),
    "prompt_toolkit": ("terminal",),
    "rich": ("cli", "terminal"),
    "safetensors": ("convert", "demo", "tune", "weights"),
    "starlette": ("server",),
    "uvicorn": ("server",),
    "openai_harmony": ("demo", "harmony", "tokenizer"),
}
NO_MLX = (
    "config",
    "errors",
    "vocabulary",
    "tokenizer",
    "harmony",
    "cli",
    "chat",
    "conversations",
    "terminal",
    "tools",
)


def _modules() -> Iterator[tuple[str, Path]]:
    """(dotted name below gptoss_mlx, file) of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


MODULES = dict(_modules())


def _imports(path: Path) -> set[str]:
    """The absolute names a module imports, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            names.update(
                f"{base}.{alias.name}"
                if f"{base}.{alias.name}".removeprefix("gptoss_mlx.") in MODULES
                else base
                for alias in node.names
            )
    return names


def _rank(module: str) -> int:
    room = module.split(".")[0]
    return DEMO_SCRIPTS if room == "demo" and module != "demo" else RANKS[room]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_go_down(module: str) -> None:
    """A module imports its own package's modules, and otherwise only lower ranks."""
    room = module.split(".")[0]
    for name in _imports(MODULES[module]):
        other = name.removeprefix("gptoss_mlx.")
        if not name.startswith("gptoss_mlx.") or other.split(".")[0] == room:
            continue
        assert _rank(other) < _rank(module), f"{module} imports {other}"


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_libraries_have_their_rooms(module: str) -> None:
    """click stays in cli, safetensors with the readers, and ranks that need no MLX have none."""
    room = module.split(".")[0]
    libraries = {name.split(".")[0] for name in _imports(MODULES[module])}
    for library, rooms in ONLY_IN.items():
        assert library not in libraries or room in rooms, f"{module} imports {library}"
    assert "mlx" not in libraries or room not in NO_MLX, f"{module} imports mlx"
    assert "mlx_lm" not in libraries or room in ("bench", "tune"), f"{module} imports mlx_lm"
