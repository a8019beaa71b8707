"""Dialogues as token ids: the prompt, and what the model is to sample after it.

openai-harmony renders the prompt. It does not know how dialogues are made up.
"""

from __future__ import annotations

from openai_harmony import Conversation, Message, Role

from gptoss_mlx.demo.dialogues import Dialogue
from gptoss_mlx.demo.scenes import WeatherTool
from gptoss_mlx.tokenizer import Tokenizer


def prompt_ids(tokenizer: Tokenizer, dialogue: Dialogue) -> tuple[list[int], list[int]]:
    """The ids of the scene, and of the rest of the prompt up to `<|start|>assistant`."""
    encoding = tokenizer.encoding
    messages = dialogue.messages
    conversation = Conversation.from_messages(messages)
    ids = encoding.render_conversation_for_completion(conversation, Role.ASSISTANT)
    if dialogue.sampled_calls and dialogue.scene.weather:
        ids = _respell_calls(tokenizer, ids, dialogue.scene.weather)
    cut = _second_start(tokenizer, ids, len(dialogue.scene.messages()))
    return ids[:cut], ids[cut:]


def expected_ids(tokenizer: Tokenizer, dialogue: Dialogue) -> list[int]:
    """The ids that the model is to sample, the stop token among them."""
    return tokenizer.encode_with_special(spell(dialogue.turn.expected))


def spell(messages: tuple[Message, ...]) -> str:
    """Messages as gpt-oss samples them after `<|start|>assistant`: the recipient in the channel."""
    parts: list[str] = []
    for message in messages:
        recipient = f" to={message.recipient} {message.content_type}" if message.recipient else ""
        parts.append(f"<|channel|>{message.channel}{recipient}<|message|>{text_of(message)}")
    stop = "<|call|>" if messages[-1].recipient else "<|return|>"
    return "<|end|><|start|>assistant".join(parts) + stop


def text_of(message: Message) -> str:
    """The text of a message that holds one piece of text."""
    return getattr(message.content[0], "text", "")


def _second_start(tokenizer: Tokenizer, ids: list[int], messages: int) -> int:
    """Where the message after the first `messages` begins."""
    start = tokenizer.encode_with_special("<|start|>")[0]
    return [i for i, token in enumerate(ids) if token == start][messages]


def _respell_calls(tokenizer: Tokenizer, ids: list[int], tool: WeatherTool) -> list[int]:
    """Move the recipient of every call from the role, where it is rendered, to the channel."""
    to = f" to=functions.{tool.name}"
    rendered = tokenizer.encode_with_special(f"<|start|>assistant{to}<|channel|>commentary")
    sampled = tokenizer.encode_with_special(f"<|start|>assistant<|channel|>commentary{to}")
    out: list[int] = []
    i = 0
    while i < len(ids):
        match = ids[i : i + len(rendered)] == rendered
        out += sampled if match else ids[i : i + 1]
        i += len(rendered) if match else 1
    return out
