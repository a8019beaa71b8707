"""Fixtures and rules that all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from checkpoints import ONE_FILE, SHARD, TINY, fingerprint

from gptoss_mlx.convert import conversion, convert, reader
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.tokenizer import Tokenizer, load_tokenizer

NO_SKIPS = os.environ.get("GPTOSS_MLX_NO_SKIPS") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be skipped (in CI, which installs everything), a skip is a failure."""
    report = yield
    if NO_SKIPS and report.skipped:
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole modules."""
    report = yield
    if NO_SKIPS and report.skipped:
        report.outcome = "failed"
    return report


@pytest.fixture(autouse=True)
def interruptible() -> None:
    """Ctrl-C interrupts, also where the tests were started in the background, or by others."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The tokenizer of all gpt-oss models."""
    return load_tokenizer()


@pytest.fixture
def no_tokenizer() -> Iterator[None]:
    """Conversions write no tokenizer: it takes seconds and has tests of its own."""
    with patch.object(conversion, "add_tokenizer"):
        yield


@pytest.fixture
def many_chunks() -> Iterator[None]:
    """Conversions read little at a time, so that there is a middle to stop in."""
    with patch.object(reader, "CHUNK_BYTES", 20_000):
        yield


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Undamaged checkpoints by name, to read or to copy."""
    folder = tmp_path_factory.mktemp("good")
    write_random_checkpoint(folder / "one", TINY)
    write_random_checkpoint(folder / "several", TINY, shard_bytes=180_000)
    write_random_checkpoint(folder / "hf", TINY, layout="huggingface")
    assert (folder / "several" / SHARD).is_file()
    assert (folder / "one" / ONE_FILE).is_file()
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def source(good: dict[str, Path]) -> Path:
    """A small checkpoint in OpenAI's layout, for modules without a source of their own."""
    return good["one"]


@pytest.fixture
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed conversion of the source gives."""
    folder = tmp_path_factory.mktemp("expected") / "out"
    convert(source, folder)
    return fingerprint(folder)
