"""The sandbox, the port, variables, and the Hub."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

import gptoss_mlx
from gptoss_mlx import hub
from gptoss_mlx.doctor import check_hub, check_port, check_sandbox, check_variables, examine
from gptoss_mlx.doctor.surroundings import KNOWN_VARIABLES
from gptoss_mlx.errors import HubError
from gptoss_mlx.tools import python
from gptoss_mlx.tools.python.guard import MARK


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is set."""
    for name in list(os.environ):
        if name.startswith(("GPTOSS_MLX_", "HF_", "MLX_", "MTL_", "XDG_")) or "PROXY" in name:
            monkeypatch.delenv(name)


def test_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the tool is missing, with the remedy; the rest works."""
    monkeypatch.setattr(python, "sandbox_problem", lambda: None)
    (finding,) = check_sandbox()
    assert finding.level == "ok"
    monkeypatch.setattr(python, "sandbox_problem", lambda: "install bubblewrap")
    (finding,) = check_sandbox()
    assert (finding.level, finding.text) == ("warning", "install bubblewrap")


def test_the_port() -> None:
    """Free, taken, and free again; looking at it does not keep it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (finding,) = check_port(port)
        assert finding.level == "warning"
        assert f"{port} is taken" in finding.text
        assert "--port 0" in finding.text
    for _ in range(2):
        (finding,) = check_port(port)
        assert finding.level == "ok"


@pytest.mark.usefixtures("no_variables")
def test_variables_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are shown, secrets are not."""
    (finding,) = check_variables()
    assert finding.text == "none is set that matters"
    monkeypatch.setenv("GPTOSS_MLX_MEMORY", "12GiB")
    monkeypatch.setenv("GPTOSS_MLX_API_KEY", "hunter2")
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy")
    monkeypatch.setenv("HF_HOME", "")
    (finding,) = check_variables()
    assert finding.level == "ok"
    assert finding.text == (
        "GPTOSS_MLX_API_KEY (set), GPTOSS_MLX_MEMORY=12GiB, HF_TOKEN (set), HTTPS_PROXY (set)"
    )


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("GPTOSS_MLX_MODEL", "nothing", "no model 'nothing' is here; unset it"),
        ("GPTOSS_MLX_MODEL", "120b", "no 120b is installed"),
        ("GPTOSS_MLX_KERNEL", "off", "did you mean GPTOSS_MLX_KERNELS?"),
        ("GPTOSS_MLX_XYZZYXYZZY", "1", "known are GPTOSS_MLX_API_KEY, "),
        ("MLX_DISABLE_COMPILE", "1", "slower"),
        ("MTL_SHADER_VALIDATION", "1", "slowly; unset it"),
    ],
)
def test_variables_that_should_not_be(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str
) -> None:
    """Misspelt ones, which would do nothing, and those that slow everything down."""
    monkeypatch.setenv(name, value)
    _, finding = check_variables()
    assert finding.level == "warning"
    assert finding.text.startswith(name)
    assert text in finding.text


def test_all_variables_are_known() -> None:
    """Every one that the package reads."""
    package = Path(gptoss_mlx.__path__[0])
    sources = [
        path.read_text("utf-8") for path in package.rglob("*.py") if path.parts[-2] != "doctor"
    ]
    found = {name for text in sources for name in re.findall(r"\bGPTOSS_MLX_[A-Z_]+", text)}
    assert found - {MARK} == set(KNOWN_VARIABLES)


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers, or why it does not."""
    monkeypatch.setattr(hub, "reach", str)
    (finding,) = examine("Hub", check_hub)
    assert finding.level == "ok"
    assert finding.text.endswith(" answers")

    def refuse(_: object) -> None:
        raise HubError("it cannot be reached: check the network")

    monkeypatch.setattr(hub, "reach", refuse)
    (finding,) = examine("Hub", check_hub)
    assert (finding.level, finding.text) == ("problem", "it cannot be reached: check the network")
