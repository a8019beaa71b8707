"""Messages <-> token ids, by the harmony format's rules. It knows nothing of the engine.

    messages.py   what a message is, and what stands before a conversation
    rendering.py  messages -> the ids of a prompt
    parser.py     the ids of a completion -> messages, as they come
    stopping.py   stop strings: where the answer is cut

Source of the format: https://cookbook.openai.com/articles/openai-harmony.
"""

from gptoss_mlx.harmony.messages import ROLES, Builtin, Delta, Effort, FunctionTool, Message, Setup
from gptoss_mlx.harmony.parser import StreamParser, parse, parse_header, without_foreign_ids
from gptoss_mlx.harmony.rendering import prune, render
from gptoss_mlx.harmony.stopping import StopFilter

__all__ = [
    "ROLES",
    "Builtin",
    "Delta",
    "Effort",
    "FunctionTool",
    "Message",
    "Setup",
    "StopFilter",
    "StreamParser",
    "parse",
    "parse_header",
    "prune",
    "render",
    "without_foreign_ids",
]
