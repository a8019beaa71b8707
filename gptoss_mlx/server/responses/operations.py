"""What /v1/responses offers, for the server's OpenAPI document."""

from __future__ import annotations

from gptoss_mlx.server.openapi import Operation
from gptoss_mlx.server.responses.schema import CompactRequest, CreateRequest

__all__ = ["OPERATIONS"]

_PATH = "/v1/responses"
_RESPONSE = ("id", "object", "created_at", "status", "model", "output")
OPERATIONS = (
    Operation(
        "POST", _PATH, "A new response.", body=CreateRequest, returns=_RESPONSE, streams=True
    ),
    Operation(
        "POST",
        f"{_PATH}/input_tokens",
        "How many tokens the prompt of a response would have.",
        body=CreateRequest,
        returns=("object", "input_tokens"),
    ),
    Operation(
        "POST",
        f"{_PATH}/compact",
        "An item that stands for a conversation: a summary.",
        body=CompactRequest,
        returns=("id", "object", "created_at", "output", "usage"),
    ),
    Operation(
        "GET",
        f"{_PATH}/{{identity}}",
        "A stored response, or the events of one that was streamed in the background.",
        returns=_RESPONSE,
        streams=True,
        query={
            "stream": {"type": "boolean", "default": False},
            "starting_after": {"type": "integer", "description": "The number of an event."},
        },
    ),
    Operation(
        "DELETE",
        f"{_PATH}/{{identity}}",
        "Forget a stored response.",
        returns=("id", "object", "deleted"),
    ),
    Operation(
        "POST",
        f"{_PATH}/{{identity}}/cancel",
        "End a response that runs in the background.",
        returns=_RESPONSE,
    ),
    Operation(
        "GET",
        f"{_PATH}/{{identity}}/input_items",
        "What a response was asked.",
        returns=("object", "data", "first_id", "last_id", "has_more"),
        query={
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            "order": {"enum": ["asc", "desc"], "default": "desc"},
            "after": {"type": "string", "description": "The id of an item."},
        },
    ),
)
