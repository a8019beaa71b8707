"""Codex CLI, unchanged and offline: it asks, its tools are called, and a file is edited.

The CLI is the one that GPTOSS_MLX_CODEX names, or the one on the PATH. The model replays a script,
so what is tested is that both understand each other, turn after turn.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gptoss_mlx.tokenizer import Tokenizer

from .replaying import KEY, Replaying, answer, call, preamble, replaying, thought

CODEX = os.environ.get("GPTOSS_MLX_CODEX") or shutil.which("codex")
pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        CODEX is None, reason="needs Codex CLI: npm install -g @openai/codex, or GPTOSS_MLX_CODEX"
    ),
]
CONFIG = """
model = "gpt-oss-20b"
model_provider = "gptoss-mlx"
model_context_window = 131072
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.gptoss-mlx]
name = "gptoss-mlx"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "GPTOSS_MLX_API_KEY"
"""
PATCH = """apply_patch <<'EOF'
*** Begin Patch
*** Update File: greeting.txt
@@
-hi
+hello
*** End Patch
EOF"""


def command(text: str) -> str:
    """A call of Codex's shell."""
    return call("exec_command", json.dumps({"cmd": text}))


@dataclass(frozen=True)
class Codex:
    """The CLI in a folder of its own, and the server that it talks to."""

    folder: Path
    server: Replaying

    @property
    def repository(self) -> Path:
        """What it works on."""
        return self.folder / "repository"

    def ask(self, *arguments: str) -> list[dict[str, Any]]:
        """What `codex exec` prints about a prompt: events, one a line."""
        assert CODEX is not None
        (self.folder / "config.toml").write_text(CONFIG.format(url=self.server.url))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "CODEX_HOME": str(self.folder),
            "GPTOSS_MLX_API_KEY": KEY,
        }
        done = subprocess.run(
            [CODEX, "exec", "--json", "--sandbox", "danger-full-access", *arguments],
            cwd=self.repository,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def codex(folder: Path, tokenizer: Tokenizer, *said: str) -> Generator[Codex]:
    """Codex in a repository, and a server whose model says these things."""
    (folder / "repository").mkdir()
    subprocess.run(["git", "init", "-q", "repository"], cwd=folder, check=True)
    with replaying(tokenizer, *said) as server:
        yield Codex(folder, server)


def items(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The items of a kind that were completed."""
    done = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in done if item["type"] == kind]


def test_a_prompt_is_answered_and_the_session_goes_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The answer and the reasoning are shown; in a later run both sides know the first."""
    first, second = thought("They greet me.") + answer("Hello there!"), answer("Twice, even.")
    with codex(tmp_path, tokenizer, first, second) as cli:
        events = cli.ask("Say hello")
        assert [item["text"] for item in items(events, "reasoning")] == ["They greet me."]
        assert [item["text"] for item in items(events, "agent_message")] == ["Hello there!"]
        usage = events[-1]["usage"]
        assert usage["input_tokens"] == len(cli.server.model.prompts[0])
        assert usage["output_tokens"] == len(tokenizer.encode_with_special(first))
        assert 0 < usage["reasoning_output_tokens"] < usage["output_tokens"]
        events = cli.ask("resume", "--last", "Again")
        assert [item["text"] for item in items(events, "agent_message")] == ["Twice, even."]
        asked = tokenizer.decode(cli.server.model.prompts[1])
        assert "Say hello" in asked
        assert "Hello there!" in asked


def test_a_file_is_edited(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A command is run, a patch applied; each prompt goes on from what was sampled, and is cached.

    So the chain of thought is with the model until its answer, without anything being stored here.
    """
    said = [
        thought("First I look.") + command("cat greeting.txt"),
        thought("It is too short.") + preamble("I patch it.") + command(PATCH),
        thought("Done.") + answer("I changed the greeting."),
    ]
    with codex(tmp_path, tokenizer, *said) as cli:
        greeting = cli.repository / "greeting.txt"
        greeting.write_text("hi\n")
        events = cli.ask("Make the greeting longer")
        assert greeting.read_text() == "hello\n"
        (ran,) = items(events, "command_execution")
        assert (ran["aggregated_output"], ran["exit_code"]) == ("hi\n", 0)
        (change,) = items(events, "file_change")
        assert (change["status"], change["changes"][0]["kind"]) == ("completed", "update")
        texts = [item["text"] for item in items(events, "agent_message")]
        assert texts == ["I patch it.", "I changed the greeting."]
        prompts = list(cli.server.model.prompts.values())
        assert len(prompts) == 3
        assert cli.server.goes_on(1)
        assert cli.server.goes_on(2)
        usage = events[-1]["usage"]
        assert usage["input_tokens"] == sum(map(len, prompts))
        assert usage["cached_input_tokens"] >= len(prompts[0]) + len(prompts[1])
