"""What the side of this package says of itself."""

from __future__ import annotations

import pytest

from gptoss_mlx.bench.ours import kernels_in_use
from gptoss_mlx.kernels import choice
from gptoss_mlx.kernels.choice import CHOICES, Trial


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on which a kernel is fast, another slow, and a third wrong."""
    fast, slow, wrong = CHOICES[:3]
    found = [
        Trial(fast, 0.0, ((1, 1.0, 2.0),)),
        Trial(slow, 0.0, ((1, 2.0, 1.0),)),
        Trial(wrong, problem="its result is wrong"),
    ]
    monkeypatch.setattr(choice, "device", lambda: "Test GPU")

    def trials(_: str) -> dict[str, Trial]:
        return {trial.kernel: trial for trial in found}

    monkeypatch.setattr(choice, "trials", trials)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("setting", "text"),
    [("auto", f"1 of {len(CHOICES)} kernels on"), ("off", "GPTOSS_MLX_KERNELS=off")],
)
def test_kernels_on_a_mac(setting: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that serve there, or what the user said."""
    monkeypatch.setenv(choice.VARIABLE, setting)
    assert kernels_in_use() == text


def test_kernels_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none to speak of."""
    monkeypatch.setattr(choice, "device", lambda: None)
    assert kernels_in_use() == ""
