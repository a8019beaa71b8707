"""What a request of /v1/completions may say; keys that are not here are ignored."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CompletionRequest", "StreamOptions"]

Ids = Annotated[list[int], Field(min_length=1)]
_MAX_PROMPTS = 16


class StreamOptions(BaseModel):
    """How to stream."""

    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """One or several texts to go on with."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: (
        str
        | Ids
        | Annotated[list[str], Field(min_length=1, max_length=_MAX_PROMPTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=_MAX_PROMPTS)]
    ) = Field(description="Text, in which <|start|> and its like are markers; or token ids.")
    model: str | None = Field(None, description="Any name: there is one model.")
    suffix: str | None = Field(None, description="Refused: the models cannot fill in.")
    echo: bool | None = Field(None, description="Repeat the prompt before the completion.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(16, description="As OpenAI has it.")
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
