"""A job's reply as something that a run can run: a conversation of its own, with its own tools.

It knows the chat and the engine, and nothing of wire formats.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from gptoss_mlx.chat import Chat, Event, Options
from gptoss_mlx.server.host import OpenModel
from gptoss_mlx.server.job import Job, constraint
from gptoss_mlx.tools import Toolbox
from gptoss_mlx.tools.browser import BrowserTool
from gptoss_mlx.tools.browser.page import Page

__all__ = ["OpenTools", "Reply"]

OpenTools = Callable[[Sequence[str]], Toolbox]  # the builtins of a job -> tools that run them


class Reply:
    """What a `Run` needs of one job; see its `Work`.

    Args:
        job: what is asked.
        model: who answers.
        open_tools: makes the tools of the job's builtins, fresh for every reply.
    """

    def __init__(self, job: Job, model: OpenModel, open_tools: OpenTools) -> None:
        self._job, self._open_tools = job, open_tools
        self._chat = Chat(model.engine, model.tokenizer, job.setup, model.speculation)
        self._chat.messages = list(job.messages)

    def begin(self) -> Generator[Event]:
        """Open the tools, compile the grammar, and send; see `Chat.send` for what comes.

        Raises:
            GptOssError: the request cannot be taken.
        """
        chat, job = self._chat, self._job
        if job.builtins:
            chat.toolbox = self._open_tools(job.builtins)
        recipients = [name for tool in chat.toolbox.tools for name in tool.recipients]
        constrain = constraint(job, recipients, chat.tokenizer)
        return chat.send(options=Options(job.params, stop=job.stop, constrain=constrain))

    def count(self) -> int:
        """How many tokens its first prompt has; nothing is sent."""
        chat, job = self._chat, self._job
        if job.builtins:
            chat.toolbox = self._open_tools(job.builtins)
        return len(chat.prompt())

    def cancel(self) -> None:
        """End it, and the tool that runs."""
        self._chat.cancel()

    def source(self, cursor: int) -> Page | None:
        """The page that a citation means, where a browser has shown it."""
        browsers = [tool for tool in self._chat.toolbox.tools if isinstance(tool, BrowserTool)]
        return browsers[0].source(cursor) if browsers else None

    def close(self) -> None:
        """Close the tools."""
        self._chat.toolbox.close()
