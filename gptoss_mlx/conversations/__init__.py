"""Conversations on disk: saved, listed, loaded and exported. It knows neither terminal nor engine.

record.py   what is kept of a conversation, and the JSON file that keeps it
store.py    the folder with a file of each conversation
export.py   a conversation as Markdown, and as the Chat Completions API has it
"""

from gptoss_mlx.conversations.export import export_json, export_markdown
from gptoss_mlx.conversations.record import Conversation
from gptoss_mlx.conversations.store import ConversationStore, Summary, data_folder, load_file

__all__ = [
    "Conversation",
    "ConversationStore",
    "Summary",
    "data_folder",
    "export_json",
    "export_markdown",
    "load_file",
]
