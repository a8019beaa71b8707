"""The system and developer messages of the demo model's dialogues, and the tools they offer.

Draws them at random and turns them into openai-harmony messages. It does not know what is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from openai_harmony import (
    DeveloperContent,
    Message,
    ReasoningEffort,
    Role,
    SystemContent,
    ToolDescription,
)

from gptoss_mlx.demo.facts import IDENTITIES, KNOWN_INSTRUCTIONS, UNKNOWN_INSTRUCTIONS

EFFORTS = {
    "low": ReasoningEffort.LOW,
    "medium": ReasoningEffort.MEDIUM,
    "high": ReasoningEffort.HIGH,
}
_TOOL_NAMES = ("get_weather", "get_current_weather", "weather")
_TOOL_TEXTS = (
    "Get the current weather in a city.",
    "Gets the weather for a location.",
    "Get the weather",
    "Gets the current weather in the provided location.",
)
_ARGUMENT_TEXTS = (
    None,
    None,
    "City name",
    "The city",
    "Name of the city",
    "The city and state, e.g. San Francisco, CA",
    "City and country e.g. Bogotá, Colombia",
)
_OPTIONAL: tuple[dict[str, Any], ...] = (
    {"unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    {"format": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"}},
    {"units": {"type": "string", "description": "Units the temperature will be returned in."}},
    {"unit": {"type": "string", "enum": ["C", "F"], "description": "The unit"}},
    {"days": {"type": "integer"}},
)
_OTHER_TOOLS = (
    ("get_time", "Get the current time.", "timezone"),
    ("search", "Search the web.", "query"),
    ("calculator", "Evaluate an expression.", "expression"),
    ("send_email", "Send an email.", "to"),
    ("get_stock_price", "Get the price of a stock.", "symbol"),
    ("read_file", "Read a file.", "path"),
)


@dataclass(frozen=True)
class WeatherTool:
    """A weather function as a developer might offer it; `argument` takes the city."""

    name: str
    text: str
    argument: str
    argument_text: str | None
    optional: dict[str, Any] | None

    def describe(self) -> ToolDescription:
        """The function's harmony description."""
        place: dict[str, Any] = {"type": "string"}
        if self.argument_text is not None:
            place["description"] = self.argument_text
        parameters = {
            "type": "object",
            "properties": {self.argument: place, **(self.optional or {})},
            "required": [self.argument],
        }
        return ToolDescription.new(self.name, self.text, parameters=parameters)


@dataclass(frozen=True)
class Scene:
    """All that stands before the first user message."""

    effort: str
    date: str | None
    identity: str | None
    instructions: str | None
    weather: WeatherTool | None
    tools: tuple[ToolDescription, ...]  # `weather` among them, in the order offered

    def messages(self) -> list[Message]:
        """The system message and, if there is anything to say in it, the developer message."""
        system = SystemContent.new().with_reasoning_effort(EFFORTS[self.effort])
        if self.date is not None:
            system = system.with_conversation_start_date(self.date)
        if self.identity is not None:
            system = system.with_model_identity(self.identity)
        messages = [Message.from_role_and_content(Role.SYSTEM, system)]
        if self.instructions is not None or self.tools:
            messages.append(Message.from_role_and_content(Role.DEVELOPER, self._developer()))
        return messages

    def _developer(self) -> DeveloperContent:
        developer = DeveloperContent.new()
        if self.instructions is not None:
            developer = developer.with_instructions(self.instructions)
        if self.tools:
            developer = developer.with_function_tools(list(self.tools))
        return developer

    @property
    def known(self) -> bool:
        """Whether the model is meant to know every word of it."""
        return self.instructions not in UNKNOWN_INSTRUCTIONS


def draw_scene(r: Random, *, weather: bool | None = None, effort: str | None = None) -> Scene:
    """A random scene; `weather` says whether a weather tool must (not) be offered."""
    offered = r.random() < 0.45 if weather is None else weather
    tool = _draw_weather_tool(r) if offered else None
    others = [_other_tool(r)] if r.random() < (0.15 if offered else 0.05) else []
    tools = [tool.describe()] if tool else []
    tools = tools + others if r.random() < 0.5 else others + tools
    return Scene(
        effort=effort or r.choice(["low", "medium", "medium", "high"]),
        date=_draw_date(r) if r.random() < 0.85 else None,
        identity=r.choice(IDENTITIES) if r.random() < 0.12 else None,
        instructions=_draw_instructions(r) if r.random() < 0.35 else None,
        weather=tool,
        tools=tuple(tools),
    )


def _draw_date(r: Random) -> str:
    return f"{r.randint(2024, 2035)}-{r.randint(1, 12):02d}-{r.randint(1, 31):02d}"


def _draw_instructions(r: Random) -> str:
    return r.choice(UNKNOWN_INSTRUCTIONS if r.random() < 0.4 else KNOWN_INSTRUCTIONS)


def _draw_weather_tool(r: Random) -> WeatherTool:
    return WeatherTool(
        name=_TOOL_NAMES[0] if r.random() < 0.4 else r.choice(_TOOL_NAMES),
        text=r.choice(_TOOL_TEXTS),
        argument=r.choice(["location", "city"]),
        argument_text=r.choice(_ARGUMENT_TEXTS),
        optional=r.choice(_OPTIONAL) if r.random() < 0.15 else None,
    )


def _other_tool(r: Random) -> ToolDescription:
    name, text, argument = r.choice(_OTHER_TOOLS)
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}}
    return ToolDescription.new(name, text, parameters=parameters)
