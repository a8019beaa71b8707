"""`gptoss-mlx serve` as a user meets it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2 as httpx
import pytest
from pseudo_terminal import INTERRUPTIBLE
from starlette.testclient import TestClient

from gptoss_mlx.cli import run
from gptoss_mlx.cli.serve import clients_text
from gptoss_mlx.engine import Engine
from gptoss_mlx.server.serving import listen, url_of

QUESTION = {"messages": [{"role": "user", "content": "What is 2 + 2?"}], "temperature": 0}


def test_a_server_from_start_to_end() -> None:
    """It says where it is and how to use it, answers, logs one line, and ends with Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "serve", "-m", "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        line, *recipes = (process.stdout.readline() for _ in range(4))
        url = re.match(r"Serving demo at (http://127\.0\.0\.1:\d+)  \(Ctrl-C ends it\)\n", line)
        assert url is not None, line
        answer = httpx.post(f"{url[1]}/v1/chat/completions", json=QUESTION, timeout=60).json()
        assert "4" in answer["choices"][0]["message"]["content"]
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"OPENAI_BASE_URL={url[1]}/v1" in recipes[0]
    loading, logged, stopped = (line for line in err.splitlines() if line)
    assert (loading, stopped) == ("Loading demo ...", "Stopped.")
    entry = json.loads(logged)
    assert (entry["path"], entry["status"]) == ("/v1/chat/completions", 200)
    assert entry["completion_tokens"] == answer["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--host", "0.0.0.0"], "--api-key KEY, or --open"),
        (["--api-key", ""], "the API key is empty"),
        (["--tools", "apply_patch"], "a server runs only python and browser"),
        (["--tools", "python,functions.py"], "a server runs only python and browser"),
        (["--tools", "browser:folder:/no/such"], "/no/such"),
        (["--cors", "a.b"], "an origin is https://NAME"),
        (["--host", "no.such.name.invalid", "--open"], "cannot be had"),
        (["--port", "99999"], "--port"),
        (["--idle", "0"], "--idle"),
        (["--parallel", "0"], "--parallel"),
        (["--max-waiting", "-1"], "--max-waiting"),
        (["--max-body", "0"], "--max-body"),
        (["--log-level", "loud"], "--log-level"),
        (["--log-format", "xml"], "--log-format"),
        (["--store", "."], "--store"),
    ],
)
def test_errors(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be is said in one line, before anything is loaded."""
    with patch.object(Engine, "load", side_effect=AssertionError("loaded")):
        code = run(["serve", "-m", "demo", "--port", "0", *arguments])
    error = capsys.readouterr().err
    assert code == 2
    assert text in error
    assert error.count("\n") == 1


def test_options_arrive() -> None:
    """Each where it belongs."""
    options = ["--max-waiting", "3", "--max-body", "2", "--parallel", "2", "--context", "5000"]
    with (
        patch.object(Engine, "load", wraps=Engine.load) as load,
        patch("gptoss_mlx.server.serving.serve") as serving,
    ):
        assert run(["serve", "-m", "demo", "--port", "0", *options]) == 0
    use = load.call_args.args[1]
    assert (use.parallel, use.context) == (2, 5000)
    assert load.call_args.kwargs["max_waiting"] == 3
    with TestClient(serving.call_args.args[0], "http://127.0.0.1") as http:
        assert http.post("/v1/responses", content=b"x" * (2 << 20)).status_code == 400
        assert http.post("/v1/responses", content=b"x" * (2 << 20) + b"x").status_code == 413


def test_what_is_stored_outlives_the_server(tmp_path: Path) -> None:
    """Responses, and the key of what clients keep, both in files of their owner's only."""
    store = tmp_path / "responses.db"
    apps: list[Any] = []
    found: list[str] = []

    def serve(app: Any, *_: object, **__: object) -> None:
        apps.append(app)
        with TestClient(app, "http://127.0.0.1") as http:
            if not found:
                body = {"input": "What is 2 + 2?", "max_output_tokens": 20}
                found.append(http.post("/v1/responses", json=body).json()["id"])
            assert http.get(f"/v1/responses/{found[0]}").status_code == 200

    with patch("gptoss_mlx.server.serving.serve", serve):
        for _ in range(2):
            assert run(["serve", "-m", "demo", "--port", "0", "--store", str(store)]) == 0
    assert len(apps) == 2
    assert {path.name for path in tmp_path.iterdir()} >= {"responses.db", "responses.db.key"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_no_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what to do."""
    monkeypatch.delenv("GPTOSS_MLX_MODEL", raising=False)
    assert run(["serve"]) == 2
    assert "demo works now" in capsys.readouterr().err


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Is an error at the start, not at the first request."""
    assert run(["serve", "-m", str(tmp_path / "none"), "--port", "0"]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """Says so, and how to choose another."""
    with listen("127.0.0.1", 0) as taken:
        port = url_of(taken).rpartition(":")[2]
        assert run(["serve", "-m", "demo", "--port", port]) == 2
    assert "is taken: --port chooses another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
def test_urls(host: str, url: str) -> None:
    """Are ones that a client on this machine can use."""
    with listen(host, 0) as listener:
        assert url_of(listener).startswith(url)


def test_keys_are_not_printed() -> None:
    """The lines about clients may be copied anywhere."""
    text = clients_text("http://h:1", "m", 4096, needs_key=True)
    assert "OPENAI_API_KEY=KEY" in text
    assert "OPENAI_API_KEY=none" in clients_text("http://h:1", "m", 4096, needs_key=False)
    assert "model_providers.local" in text
