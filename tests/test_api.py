"""What `import gptoss_mlx` exports, and how the public surface is kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import gptoss_mlx


def test_exported_names() -> None:
    """The public names are these, sorted, and each can be imported."""
    assert gptoss_mlx.__all__ == ["Chat", "Engine", "GptOssError", "ModelConfig", "load"]
    assert all(hasattr(gptoss_mlx, name) for name in gptoss_mlx.__all__)


def test_unknown_name() -> None:
    """A name that is not exported is an AttributeError, not an import of something else."""
    assert not hasattr(gptoss_mlx, "engine_that_does_not_exist")


def test_help_imports_nothing_heavy() -> None:
    """`gptoss-mlx --help` imports neither MLX nor numpy, nor anything that tokenizes."""
    script = (
        "import sys; from gptoss_mlx.cli import run; assert run(['--help']) == 0; "
        "heavy = {'mlx', 'mlx_lm', 'numpy', 'openai_harmony', 'rich', 'safetensors', 'torch'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_chat_never_imports_mlx_lm() -> None:
    """mlx-lm takes seconds to import, so nothing on the way to an answer may import it."""
    script = (
        "import sys, gptoss_mlx.chat, gptoss_mlx.models, gptoss_mlx.cli; "
        "sys.exit('mlx_lm' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize("given", [{}, {"MLX_MAX_MB_PER_BUFFER": "7"}])
def test_buffer_limits_are_set_before_mlx(given: dict[str, str]) -> None:
    """MLX reads them when it starts; what the user has set stays."""
    script = (
        "import sys, os, gptoss_mlx; assert 'mlx.core' not in sys.modules; "
        "print(os.environ['MLX_MAX_OPS_PER_BUFFER'], os.environ['MLX_MAX_MB_PER_BUFFER'])"
    )
    names = ("MLX_MAX_OPS_PER_BUFFER", "MLX_MAX_MB_PER_BUFFER")
    environment = {k: v for k, v in os.environ.items() if k not in names} | given
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert result.stdout.split() == ["100", given.get("MLX_MAX_MB_PER_BUFFER", "1000")]
