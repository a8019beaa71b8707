"""Every error that gptoss-mlx raises on purpose, and the exit code the command line gives it.

    GptOssError                 one clear line, with the remedy; exit code 1
    ├── UsageError              the request itself is wrong, not the files; exit code 2
    │   └── GrammarError        a schema, regex or grammar that cannot be used
    ├── CheckpointError         the files on disk are not a usable checkpoint
    │   ├── ConfigError         config.json: missing, unknown or contradictory keys
    │   ├── MissingFileError    a file that the checkpoint names is not there
    │   ├── CorruptFileError    a file is truncated or its header lies
    │   └── TensorError         a tensor is missing, unexpected, or of a wrong shape or dtype
    ├── DiskError               not enough space, or a place that cannot be written
    ├── HubError                a repository cannot be had, or only damaged
    ├── VerifyError             a conversion differs from its source
    ├── VocabularyError         the o200k vocabulary is nowhere to be had
    ├── MemoryPlanError         a model does not fit into this machine's memory
    ├── ContextLengthError      a prompt is longer than the context
    ├── ToolError               a tool's call failed; the text is for the model
    └── EngineError             a request failed while it ran
        ├── BusyError           too many requests are waiting
        ├── CacheFullError      the keys and values do not fit into their budget
        └── DeadlineError       a request has taken longer than it may

A message says what is wrong, where, and what to do. It does not know how it will be shown.
"""

from __future__ import annotations

__all__ = [
    "BusyError",
    "CacheFullError",
    "CheckpointError",
    "ConfigError",
    "ContextLengthError",
    "CorruptFileError",
    "DeadlineError",
    "DiskError",
    "EngineError",
    "GptOssError",
    "GrammarError",
    "HubError",
    "MemoryPlanError",
    "MissingFileError",
    "TensorError",
    "ToolError",
    "UsageError",
    "VerifyError",
    "VocabularyError",
]


class GptOssError(Exception):
    """The base of all errors raised on purpose; its text is one line for the user."""

    exit_code = 1


class UsageError(GptOssError):
    """The request is wrong, not the files: a bad option, or a destination that exists."""

    exit_code = 2


class GrammarError(UsageError):
    """A JSON schema, regular expression, grammar or choice of tools cannot be used."""


class CheckpointError(GptOssError):
    """The files on disk are not a usable checkpoint."""


class ConfigError(CheckpointError):
    """config.json lacks a key, has an unknown one, or contradicts itself."""


class MissingFileError(CheckpointError):
    """A file that the checkpoint needs is not there."""


class CorruptFileError(CheckpointError):
    """A safetensors file is truncated, or its header does not describe the file."""


class TensorError(CheckpointError):
    """A tensor is missing, unexpected, or has the wrong shape or dtype."""


class DiskError(GptOssError):
    """There is not enough space, or a place cannot be written."""


class HubError(GptOssError):
    """A repository is not there, not allowed, not reachable, or what comes from it is damaged."""


class VerifyError(GptOssError):
    """A conversion differs from the source it claims to come from."""


class VocabularyError(GptOssError):
    """The o200k vocabulary is neither installed nor in the checkpoint, or it is damaged."""


class MemoryPlanError(GptOssError):
    """The model does not fit into the memory that there is."""


class ContextLengthError(GptOssError):
    """A prompt does not fit the model's context."""


class ToolError(GptOssError):
    """A call of a tool failed, or cannot be run; the text is what the model is told."""


class EngineError(GptOssError):
    """A request failed while it ran; others did not."""


class BusyError(EngineError):
    """Too many requests are waiting."""


class CacheFullError(EngineError):
    """The keys and values of one sequence do not fit into the cache's budget."""


class DeadlineError(EngineError):
    """A request has taken longer than it may."""
