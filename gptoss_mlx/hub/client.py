"""Asking the Hub what a repository holds, and its shared cache where the Hub cannot be asked.

Everything goes through huggingface-hub, which reads HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME
and their like. Its errors become one line with the remedy. It does not know how files are fetched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, ModelInfo, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging

from gptoss_mlx.errors import HubError, UsageError
from gptoss_mlx.hub import cache
from gptoss_mlx.hub.manifest import Manifest, RemoteFile, Source, choose_source, is_needed

__all__ = [
    "REFUSALS",
    "Hub",
    "is_transient",
    "patiently",
    "quieten",
    "reach",
    "read_manifest",
    "refusal",
]

T = TypeVar("T")
REFUSALS = (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError)
_WELL_KNOWN = "openai/gpt-oss-20b"
_LONGEST_WAIT = 30.0
_PATIENCE_WITH_ANSWERS = 3  # while somebody waits who sees nothing


@dataclass(frozen=True)
class Hub:
    """How the Hub is reached, and where its shared cache lies; by default as the environment says.

    pause: seconds before the first repetition of what failed; before each further one twice as
    long. patience: repetitions in vain, without a single new byte.
    """

    endpoint: str = constants.ENDPOINT
    cache: Path = Path(constants.HF_HUB_CACHE)
    token: str | None = None
    pause: float = 1.0
    patience: int = 8

    @property
    def api(self) -> HfApi:
        """Hugging Face's client for it."""
        return HfApi(endpoint=self.endpoint, token=self.token, library_name="gptoss-mlx")


def read_manifest(
    hub: Hub, repo: str, revision: str = "main", source: Source | None = None
) -> Manifest:
    """What to download of a repository; from the cache if the Hub cannot be reached.

    Raises:
        HubError: there is no such repository, revision or source, or it cannot be read.
        UsageError: the name cannot be one of a repository.
    """
    try:
        info = patiently(hub, lambda: _model_info(hub, repo, revision))
    except HFValidationError:
        raise UsageError(
            f"{repo!r} is no repository: name one such as openai/gpt-oss-20b, or 20b, or 120b"
        ) from None
    except REFUSALS as error:
        unreachable = isinstance(error, OfflineModeIsEnabled) or is_transient(error)
        cached = _cached_manifest(hub, repo, revision, source) if unreachable else None
        if cached is None:
            raise refusal(error, hub, repo, revision) from error
        return cached
    except (KeyError, TypeError, ValueError) as error:  # no JSON, or other than the Hub's
        raise HubError(
            f"{hub.endpoint} does not answer as the Hub does: does the network want you to log in? "
            "Is HF_ENDPOINT right?"
        ) from error
    files = {
        file.rfilename: RemoteFile(
            file.rfilename,
            (file.lfs.size if file.lfs else file.size) or 0,
            file.lfs.sha256 if file.lfs else file.blob_id,
        )
        for file in info.siblings or []
    }
    is_mlx = "mlx" in (info.tags or []) or info.library_name == "mlx"
    source = source or choose_source(files, is_mlx=is_mlx)
    return _manifest(repo, revision, info.sha or revision, source, files)


def quieten() -> None:
    """Keep huggingface-hub from logging what it meets: all that matters is raised or told."""
    logging.set_verbosity_error()


def reach(hub: Hub) -> None:
    """See whether the Hub answers.

    Raises:
        HubError: why it does not.
    """
    try:
        _model_info(hub, _WELL_KNOWN, "main")
    except REFUSALS as error:
        raise refusal(error, hub, _WELL_KNOWN, "main") from error


def patiently(hub: Hub, call: Callable[[], T]) -> T:
    """Ask again, a few times and ever later, while what goes wrong may be over next time.

    A Hub that cannot be reached at all is not waited for.
    """
    patience = min(hub.patience, _PATIENCE_WITH_ANSWERS)
    for repetitions in range(patience + 1):
        try:
            return call()
        except REFUSALS as error:
            if not is_transient(error) or _is_unreachable(error) or repetitions == patience:
                raise
            wait(hub, repetitions)
    raise AssertionError("the last failure is raised")


def wait(hub: Hub, repetitions: int) -> None:
    """Before the next repetition, after so many that were in vain."""
    time.sleep(min(hub.pause * 2**repetitions, _LONGEST_WAIT))


def is_transient(error: BaseException) -> bool:
    """Whether it may be over soon: the network, or a server that is busy or broken."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status in (408, 429) or status >= 500
    return isinstance(error, httpx2.TransportError)


def refusal(error: BaseException, hub: Hub, repo: str, revision: str) -> HubError:
    """What went wrong in one line, with the remedy."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # which is only why the cache was looked into
    return HubError(_explained(error, hub, repo, revision))


def _explained(error: BaseException, hub: Hub, repo: str, revision: str) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"{repo} ({revision}) is not in the cache at {hub.cache}, and HF_HUB_OFFLINE forbids "
            "to fetch it: unset that"
        )
    if isinstance(error, GatedRepoError):
        return (
            f"{repo} is only for those who were let in: accept its terms at {hub.endpoint}/{repo}, "
            "and set HF_TOKEN to a token of that account"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{hub.endpoint} has no repository {repo}, or it is private: "
            "check the name, and for a private one set HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}: leave --revision out, or name a branch or tag"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{repo} changed meanwhile, and a file is gone: run the same command again"
    if isinstance(error, HfHubHTTPError):
        return _status_explained(error.response.status_code, hub, repo)
    return (
        f"{hub.endpoint} cannot be reached ({_one_line(error)}): check the network, and HF_ENDPOINT"
        " if you set it; what is here already stays, and the same command goes on"
    )


def _status_explained(status: int, hub: Hub, repo: str) -> str:
    if status == 401:
        return f"{hub.endpoint} does not know the token: set HF_TOKEN to a valid one, or unset it"
    if status == 403:
        return f"{hub.endpoint} does not let this token read {repo}: use another in HF_TOKEN"
    if status == 429:
        return f"{hub.endpoint} gets too many requests from here: wait a while, or set HF_TOKEN"
    return (
        f"{hub.endpoint} fails (status {status}): try again later; what is here already stays, "
        "and the same command goes on"
    )


def _is_unreachable(error: BaseException) -> bool:
    """No connection at all, rather than one that is slow or breaks."""
    return isinstance(error, httpx2.ConnectError | httpx2.ProxyError | httpx2.UnsupportedProtocol)


def _model_info(hub: Hub, repo: str, revision: str) -> ModelInfo:
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    return hub.api.model_info(repo, revision=revision, timeout=timeout, files_metadata=True)


def _cached_manifest(hub: Hub, repo: str, revision: str, source: Source | None) -> Manifest | None:
    """What the shared cache has of a repository, if it has a checkpoint of it."""
    snapshot = cache.find_snapshot(hub.cache, repo, revision)
    if snapshot is None:
        return None
    files = {
        file.name: file
        for file in (cache.cached_file(snapshot, path) for path in cache.walk(snapshot))
    }
    source = source or choose_source(files, is_mlx=True)
    try:
        manifest = _manifest(repo, revision, snapshot.name, source, files)
    except HubError:
        return None
    return replace(manifest, is_cached=True)


def _manifest(
    repo: str, revision: str, commit: str, source: Source, files: dict[str, RemoteFile]
) -> Manifest:
    """The files that are needed, the small ones first."""
    needed = sorted(
        (file for name, file in files.items() if is_needed(name, source)),
        key=lambda file: (file.is_weights, file.name),
    )
    manifest = Manifest(repo, revision, commit, source, tuple(needed))
    config = f"{manifest.subfolder}/config.json".lstrip("/")
    if config not in files or not manifest.weights_bytes:
        where = "no folder original/ with" if source == "original" else "at its top no"
        raise HubError(
            f"{repo} has {where} config.json and safetensors: "
            "choose another --source (original, hf), or another repository"
        )
    return manifest


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
