"""Pinned files of the Hugging Face hub, or a local mirror of them.

Nothing here is tied to datasets or models: :func:`fetch` turns a :class:`saffron.config.HubFile` into a local folder, and
every way in which that can fail ends in one :class:`SourceError` that says what to do. Tokens are read by
``huggingface_hub`` itself (``HF_TOKEN`` or ``hf auth login``) and appear in no message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from saffron.config import HubFile


class SourceError(ValueError):
    """A dataset or model that cannot be had, or is not what it should be; names the config key and the remedy."""


def fetch(
    file: HubFile, key: str, kind: Literal["dataset", "model"], patterns: Sequence[str], *, endpoint: str | None = None
) -> Path:
    """The local folder of a pinned hub repository; downloads what matches ``patterns`` if the cache lacks it.

    Args:
        file: id, revision and mirror.
        key: where ``file`` stands in the config, for messages.
        kind: which kind of repository.
        patterns: glob patterns of the files that are needed.
        endpoint: address of the hub, if not the usual one.

    Raises:
        SourceError: without a pin, access, network or the files; for a mirror, if the folder is missing.
    """
    if file.path is not None:
        folder = Path(file.path)
        if not folder.is_dir():
            raise SourceError(
                f"{key}.path: no folder {file.path}; put the mirror of {file.id} there, or remove the key to use the hub"
            )
        return folder
    from huggingface_hub import errors, snapshot_download

    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{file.id}"
    if file.revision is None:
        raise SourceError(
            f"{key}.revision: {file.id} is not pinned to a commit{_current_commit(file.id, kind, endpoint)}; "
            f"copy one from {page}/commits/main into the config, or set {key}.path to a local mirror"
        )
    try:
        return Path(
            snapshot_download(file.id, repo_type=kind, revision=file.revision, allow_patterns=list(patterns), endpoint=endpoint)
        )
    except errors.GatedRepoError:
        problem = f"access to {file.id} is gated: ask for it at {page}, then set the environment variable HF_TOKEN to your token"
    except errors.RepositoryNotFoundError:
        problem = (
            f"the hub shows no {kind} {file.id}: correct {key}.id, or set the environment variable HF_TOKEN if it is private"
        )
    except errors.RevisionNotFoundError:
        problem = f"{file.id} has no commit {file.revision}: copy one from {page}/commits/main into {key}.revision"
    except (OSError, errors.EntryNotFoundError, errors.HTTPError, ValueError) as error:
        problem = (
            f"{file.id} is not in the local cache and the hub did not answer ({type(error).__name__}): connect to the network, "
            f"or set {key}.path to a local mirror"
        )
    raise SourceError(f"{key}: {problem}")


def _current_commit(id: str, kind: str, endpoint: str | None) -> str:
    """The hub's current commit as a hint, if it answers."""
    from huggingface_hub import HfApi, errors

    try:
        commit = HfApi(endpoint=endpoint).repo_info(id, repo_type=kind, timeout=10).sha
    except (OSError, errors.HTTPError, ValueError):
        return ""
    return f" (its current one is {commit})"
