"""Claude Code, unchanged and offline: it asks, its tools are called, and a file is edited.

The CLI is the one that GPTOSS_MLX_CLAUDE names, or the one on the PATH. The model replays a script,
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
from helpers import ReplayModel

from gptoss_mlx.tokenizer import Tokenizer

from .replaying import KEY, answer, call, preamble, replaying, thought

CLAUDE = os.environ.get("GPTOSS_MLX_CLAUDE") or shutil.which("claude")
pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        CLAUDE is None,
        reason="needs Claude Code: npm install -g @anthropic-ai/claude-code, or GPTOSS_MLX_CLAUDE",
    ),
]
OFFLINE = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    "IS_SANDBOX": "1",  # else it allows root nothing
}


@dataclass(frozen=True)
class ClaudeCode:
    """The CLI in a folder of its own, and the model that it talks to."""

    folder: Path
    url: str
    model: ReplayModel

    @property
    def repository(self) -> Path:
        """What it works on."""
        return self.folder / "repository"

    @property
    def prompts(self) -> list[list[int]]:
        """What the model was given, turn by turn."""
        return list(self.model.prompts.values())

    def ask(self, *arguments: str) -> dict[str, Any]:
        """What `claude -p` prints of its result."""
        assert CLAUDE is not None
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_AUTH_TOKEN": KEY,
            "ANTHROPIC_MODEL": "gpt-oss-20b",
            **OFFLINE,
        }
        done = subprocess.run(
            [CLAUDE, "-p", *arguments, "--output-format", "json"],
            cwd=self.repository,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@contextmanager
def claude(folder: Path, tokenizer: Tokenizer, *said: str) -> Generator[ClaudeCode]:
    """Claude Code in a repository, and a server whose model says these things."""
    (folder / "repository").mkdir()
    subprocess.run(["git", "init", "-q", "repository"], cwd=folder, check=True)
    with replaying(tokenizer, *said) as server:
        yield ClaudeCode(folder, server.url, server.model)


def test_a_prompt_is_answered_and_the_session_goes_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The answer is printed; in a later run both sides know the first."""
    first, second = thought("They greet me.") + answer("Hello there!"), answer("Twice, even.")
    with claude(tmp_path, tokenizer, first, second) as cli:
        result = cli.ask("Say hello")
        assert (result["result"], result["is_error"]) == ("Hello there!", False)
        assert result["usage"]["input_tokens"] == len(cli.prompts[0])
        assert result["usage"]["output_tokens"] == len(tokenizer.encode_with_special(first))
        assert cli.ask("--continue", "Again")["result"] == "Twice, even."
        asked = tokenizer.decode(cli.prompts[1])
        assert "Say hello" in asked
        assert "Hello there!" in asked
        assert "They greet me." not in asked


def test_a_file_is_edited(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A file is read and changed; each prompt goes on from what was sampled, and is cached.

    So the chain of thought is with the model until its answer.
    """
    greeting = tmp_path / "repository" / "greeting.txt"
    edit = {
        "file_path": str(greeting),
        "old_string": "hi",
        "new_string": "hello",
        "replace_all": False,
    }
    said = [
        thought("First I look.") + call("Read", json.dumps({"file_path": str(greeting)})),
        thought("Too short.") + preamble("I change it.") + call("Edit", json.dumps(edit)),
        thought("Done.") + answer("I changed the greeting."),
    ]
    with claude(tmp_path, tokenizer, *said) as cli:
        greeting.write_text("hi\n")
        result = cli.ask("Make the greeting longer", "--allowedTools", "Read,Edit")
        assert greeting.read_text() == "hello\n"
        assert result["result"] == "I changed the greeting."
        assert (result["num_turns"], result["permission_denials"]) == (3, [])
        prompts = cli.prompts
        for before, sampled, after in zip(prompts, said, prompts[1:], strict=False):
            known = before + tokenizer.encode_with_special(sampled)
            assert after[: len(known)] == known
        usage = result["usage"]
        assert usage["cache_read_input_tokens"] >= len(prompts[0]) + len(prompts[1])
        total = usage["input_tokens"] + usage["cache_read_input_tokens"]
        assert total == sum(map(len, prompts))
