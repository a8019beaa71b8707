"""Which kernel serves: the user's word, what was measured, and how that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gptoss_mlx.errors import UsageError
from gptoss_mlx.kernels import choice
from gptoss_mlx.kernels.choice import Trial, fastest

GPU = "Test GPU"
PRODUCTS = ("moe_gate_up_swiglu", "moe_gemm_gate_up")


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine with a GPU, of which nothing is known yet."""
    monkeypatch.setattr(choice, "device", lambda: GPU)
    monkeypatch.setattr(choice, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    choice.forget()
    yield
    choice.forget()


def know(kernel: str, *times: tuple[int, float, float], problem: str | None = None) -> Trial:
    """Record a trial."""
    trial = Trial(kernel, 0.001, times, problem)
    choice.record(GPU, trial)
    return trial


def test_nothing_known_is_mlx() -> None:
    """Where no kernel was tried, none serves."""
    assert fastest(("router_topk",), 1) is None
    assert fastest((), 1) is None


def test_the_nearest_size_decides() -> None:
    """A kernel serves at sizes near those at which it beat MLX."""
    know("attention_decode", (128, 2.0, 1.0), (4096, 1.0, 2.0))
    sizes = (1, 128, 300, 1000, 4096, 100_000)
    expected = [None, None, None, *["attention_decode"] * 3]
    assert [fastest(("attention_decode",), size) for size in sizes] == expected


def test_the_better_ratio_wins() -> None:
    """Of two kernels that beat MLX, the one that beats it by more, whichever is preferred."""
    know("moe_gate_up_swiglu", (1, 1.0, 2.0), (4, 3.0, 4.0))
    know("moe_gemm_gate_up", (2, 1.9, 2.0), (4, 2.0, 4.0), (512, 50.0, 100.0))
    assert [fastest(PRODUCTS, n) for n in (1, 2, 4)] == [*PRODUCTS[:1] * 2, PRODUCTS[1]]


def test_no_kernel_serves_beyond_what_it_is_for() -> None:
    """A kernel for few tokens is never taken for many, nor one for many for a single token."""
    know("moe_gate_up_swiglu", (1, 2.0, 2.0), (4, 1.0, 4.0))
    know("moe_gemm_gate_up", (2, 1.0, 2.0), (512, 90.0, 100.0))
    assert fastest(PRODUCTS, 1) is None
    assert fastest(PRODUCTS, 5) == "moe_gemm_gate_up"
    assert fastest(PRODUCTS, 5000) == "moe_gemm_gate_up"
    assert fastest(PRODUCTS[:1], 5) is None


def test_a_problem_turns_a_kernel_off() -> None:
    """However fast it was."""
    trial = know("router_topk", (1, 1.0, 9.0), problem="wrong")
    assert fastest(("router_topk",), 1) is None
    assert trial.why_off == "wrong"
    assert trial.faster_at == []


def test_why_off() -> None:
    """A kernel that never beats MLX is off, one that does at some size is not."""
    assert "faster" in (know("qmv_q8", (1, 2.0, 1.0), (4, 1.0, 1.0)).why_off or "")
    assert know("qmv_q8", (1, 2.0, 1.0), (4, 0.9, 1.0)).why_off is None
    assert know("qmv_q8").why_off == "it was not timed"


def test_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's off is off."""
    know("router_topk", (1, 1.0, 9.0))
    assert fastest(("router_topk",), 1) == "router_topk"
    monkeypatch.setenv(choice.VARIABLE, "off")
    assert fastest(("router_topk",), 1) is None
    assert choice.wanted() == ()
    assert not choice.is_forced()


@pytest.mark.parametrize("here", [GPU, None])
def test_all(here: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`all` asks neither device nor measurement, and takes what is preferred for the size."""
    monkeypatch.setattr(choice, "device", lambda: here)
    know("moe_gate_up_swiglu", (1, 9.0, 1.0), problem="wrong")
    monkeypatch.setenv(choice.VARIABLE, " All ")
    assert [fastest(PRODUCTS, n) for n in (1, 4, 5, 500)] == [*PRODUCTS[:1] * 2, *PRODUCTS[1:] * 2]
    assert choice.wanted() == choice.CHOICES
    assert choice.is_forced()


def test_what_does_not_run_is_never_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that raises on this GPU gives way even to the user's word."""
    choice.record(GPU, Trial("router_topk", problem="does not compile", raised=True))
    monkeypatch.setenv(choice.VARIABLE, "router_topk")
    assert fastest(("router_topk",), 1) is None
    monkeypatch.setattr(choice, "device", lambda: None)
    assert fastest(("router_topk",), 1) == "router_topk"


@pytest.mark.parametrize(
    ("value", "kernels"),
    [
        ("qmv_q8", ["qmv_q8"]),
        ("qmv, router", ["qmv_bf16", "qmv_q4", "qmv_q8", "router_topk"]),
        ("MOE_GEMM,", ["moe_gemm_down", "moe_gemm_gate_up"]),
        ("moe_gate_up", ["moe_gate_up_swiglu"]),
    ],
)
def test_names(value: str, kernels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name stands for a kernel or a family of them, and for no other."""
    monkeypatch.setenv(choice.VARIABLE, value)
    assert list(choice.wanted()) == kernels
    assert [name for name in choice.CHOICES if fastest((name,), 1)] == kernels


@pytest.mark.parametrize("value", ["qvm", "q", "moe_g", "qmv,on", ",", "auto,qmv"])
def test_unknown_names(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no kernel's is one line with those that are."""
    monkeypatch.setenv(choice.VARIABLE, value)
    with pytest.raises(UsageError, match=r"is no kernel: .*attention_decode, .*router_topk") as e:
        choice.setting()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("value", ["", " "])
def test_empty_is_auto(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable set to nothing says nothing."""
    monkeypatch.setenv(choice.VARIABLE, value)
    assert choice.setting() == "auto"


def test_trials_outlive_the_process() -> None:
    """What is recorded is read again, exactly; what is withdrawn is not."""
    kept = [
        know("router_topk", (1, 0.1, 0.2), (512, 1e-7, 3.0)),
        Trial("qmv_q8", None, (), "it does not run here: x", raised=True),
    ]
    choice.record(GPU, kept[1])
    know("qkv_q8")
    choice.withdraw(GPU, "qkv_q8")
    choice.forget()
    assert list(choice.trials(GPU).values()) == kept
    assert choice.trials("Another GPU") == {}


def test_trials_of_another_process_are_kept() -> None:
    """Two processes that try different kernels at once leave both trials."""
    assert choice.trials(GPU) == {}  # read before the other one writes
    other = Trial("qmv_q8", 0.0, ((1, 1.0, 2.0),))
    choice.write_trials(choice.trials_file(GPU), [other])
    mine = know("router_topk", (1, 1.0, 2.0))
    choice.forget()
    assert list(choice.trials(GPU).values()) == [other, mine]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"trials": 1}',
        '{"trials": [1]}',
        '{"trials": [{"kernel": "qmv_q8"}]}',
        '{"trials": [{"kernel": "a", "error": 0, "times": 3, "problem": null, "raised": false}]}',
        '{"trials": [{"kernel": "a", "error": 0, "times": [[1]], "problem": null, "raised": 0}]}',
        "\udcff",
    ],
)
def test_damaged_files(text: str) -> None:
    """A file that is not what was written counts as none, and is written anew."""
    file = choice.trials_file(GPU)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert choice.read_trials(file) == []
    trial = know("router_topk", (1, 1.0, 2.0))
    assert choice.read_trials(file) == [trial]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("stage", ["cache_folder", "write_trials"])
def test_an_unwritable_folder(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be stored holds for this process."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(choice, stage, refuse)
    know("router_topk", (1, 1.0, 2.0))
    assert fastest(("router_topk",), 1) == "router_topk"
