"""Pinned files of the Hugging Face hub, or a local mirror of them.

Nothing here is tied to datasets or models: :func:`fetch` turns a :class:`saffron.config.HubFile` into a local folder, and
every way in which that can fail ends in one :class:`SourceError` that says what to do. Tokens are read by
``huggingface_hub`` itself (``HF_TOKEN`` or ``hf auth login``) and appear in no message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from saffron.config import Config, HubFile

Kind = Literal["dataset", "model"]


class SourceError(ValueError):
    """A dataset or model that cannot be had, or is not what it should be; names the config key and the remedy."""


def files(config: Config) -> list[tuple[str, Kind, HubFile]]:
    """Every hub id of a config: its key, its kind, and id, revision and mirror."""
    found: list[tuple[str, Kind, HubFile]] = []
    if config.sources.origin == "hub" and (sources := config.sources.hub):
        sets = {"hh_rlhf": sources.hh_rlhf, "harmful_hexphi": sources.harmful_hexphi, "ai2_refusals": sources.ai2_refusals}
        found += [(f"sources.hub.{name}", "dataset", file) for name, file in sets.items()]
    if config.models.origin == "hub" and (models := config.models.hub):
        roles = {"policy": models.policy, "guard": models.guard, "judge": models.judge}
        found += [(f"models.hub.{role}", "model", file) for role, file in roles.items() if file is not None]
    return found


def require_pins(config: Config, where: str) -> None:
    """Refuse a config in which a hub id has neither commit nor digests nor mirror; a run asks before its first job.

    Args:
        config: any.
        where: its file, for the message.

    Raises:
        SourceError: naming every such key and the remedy.
    """
    missing = [(key, file.id) for key, _, file in files(config) if not (file.revision or file.path or file.pinned_by_content)]
    if missing:
        lines = [f"  {key}.revision: {id} is not pinned to a commit" for key, id in missing]
        remedy = (
            f"  saffron pin --config {where} asks the hub for its current commits and prints the lines to put there; "
            "or set the key path beside revision to a local mirror"
        )
        raise SourceError("\n".join([f"{where}: {len(missing)} hub id(s) without a commit:", *lines, remedy]))


def current_pins(config: Config, *, endpoint: str | None = None) -> str:
    """The hub's current commit of every hub id of a config, as lines ``key: commit  # what the config has``. Only reads.

    Raises:
        SourceError: if the hub does not answer, or does not know an id.
    """
    lines = []
    for key, kind, file in files(config):
        commit = _ask(file, key, kind, endpoint)
        was = "as pinned" if file.revision == commit else f"now {file.revision or 'null'}"
        lines.append(f"{key}.revision: {commit}  # {file.id}, {was}")
    return "\n".join(lines) or "this config reads nothing from the hub"


def _ask(file: HubFile, key: str, kind: Kind, endpoint: str | None) -> str:
    from huggingface_hub import HfApi, errors

    try:
        commit = HfApi(endpoint=endpoint).repo_info(file.id, repo_type=kind, timeout=10).sha
    except errors.RepositoryNotFoundError:
        raise SourceError(
            f"{key}: the hub shows no {kind} {file.id}: correct {key}.id, or set the environment variable HF_TOKEN if it is "
            "private"
        ) from None
    except (OSError, errors.HTTPError, ValueError) as error:
        raise SourceError(
            f"{key}: the hub did not say what the current commit of {file.id} is ({type(error).__name__}): connect to the "
            f"network, or read it at {_page(file, kind)}/commits/main"
        ) from None
    if commit is None:
        raise SourceError(f"{key}: the hub names no commit of {file.id}: look for one at {_page(file, kind)}/commits/main")
    return commit


def _page(file: HubFile, kind: Kind) -> str:
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{file.id}"


def fetch(file: HubFile, key: str, kind: Kind, patterns: Sequence[str], *, endpoint: str | None = None) -> Path:
    """The local folder of a pinned hub repository; downloads what matches ``patterns`` if the cache lacks it.

    Args:
        file: id, revision and mirror; without a revision, but pinned by content, the newest commit is read.
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

    page = _page(file, kind)
    if file.revision is None and not file.pinned_by_content:
        raise SourceError(
            f"{key}.revision: {file.id} is not pinned to a commit: copy one from {page}/commits/main (or from what "
            f"`saffron pin --config <file>` prints) into the config, or set {key}.path to a local mirror"
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
