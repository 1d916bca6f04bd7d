"""Pinned files of the Hugging Face hub, or a local mirror of them.

Nothing here is tied to datasets or models: :func:`fetch` turns a :class:`saffron.config.HubFile` into a local folder, and
every way in which that can fail ends in one :class:`SourceError` that says what to do. Tokens are read by
``huggingface_hub`` itself (``HF_TOKEN`` or ``hf auth login``) and appear in no message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from socket import gaierror
from typing import Literal

from saffron.config import Config, HubDataset, HubFile
from saffron.judges import discovery
from saffron.sources.reading import SourceError

Kind = Literal["dataset", "model"]
TOKENS = "https://huggingface.co/settings/tokens"


def files(config: Config) -> list[tuple[str, Kind, HubFile]]:
    """Every hub id of a config: its key, its kind, and id, revision and mirror."""
    found: list[tuple[str, Kind, HubFile]] = []
    found += [(f"sources.{key}", "dataset", rows.hub_file) for key, rows in config.sources.all_rows() if rows.origin == "hub"]
    if config.models.origin == "hub" and (models := config.models.hub):
        roles = {"policy": models.policy, "guard": models.guard}
        found += [(f"models.hub.{role}", "model", file) for role, file in roles.items() if isinstance(file, HubFile)]
    for judge in config.judges:
        other = discovery.kind(judge.kind).checkpoint(judge.settings_of_kind)
        found += [] if other is None else [(f"judges.{judge.name}.settings.checkpoint", "model", other)]
    return found


def _pinned(file: HubFile) -> bool:
    """Whether a commit says what the files are, or digests do, whatever commit they are read from."""
    return file.revision is not None or (isinstance(file, HubDataset) and bool(file.sha256))


def require_pins(config: Config, where: str) -> None:
    """Refuse a config in which a hub id has neither commit nor digests nor mirror; a run asks before its first job.

    Args:
        config: any.
        where: its file, for the message.

    Raises:
        SourceError: naming every such key and the remedy.
    """
    missing = [(key, file.id) for key, _, file in files(config) if not (file.path or _pinned(file))]
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
    except (OSError, errors.HTTPError, ValueError) as error:
        problem = _refusal(error, file, key, kind) or (
            f"the hub did not say what the current commit of {file.id} is ({type(error).__name__}): connect to the network, or "
            f"read it at {_page(file, kind)}/commits/main"
        )
        raise SourceError(f"{key}: {problem}") from None
    if commit is None:
        raise SourceError(f"{key}: the hub names no commit of {file.id}: look for one at {_page(file, kind)}/commits/main")
    return commit


def _refusal(error: Exception, file: HubFile, key: str, kind: Kind) -> str | None:
    """What the hub's answer behind an error means and what to do about it; None without an answer that says so."""
    from huggingface_hub import errors

    answered: BaseException | None = error
    while answered is not None and not isinstance(answered, errors.HfHubHTTPError):
        answered = answered.__cause__  # a snapshot missing locally hides why the hub was not asked for it
    if answered is None:
        return None
    page, status = _page(file, kind), answered.response.status_code
    unknown = isinstance(answered, errors.RepositoryNotFoundError)  # gated ones are of this class too
    # A 401 is also how the hub hides a repository that is private or absent; of a bad token it says so.
    if status == 401 and (not unknown or "Invalid credentials" in answered.response.headers.get("X-Error-Message", "")):
        return (
            f"the hub refuses the token it was shown for {file.id}; HF_TOKEN (or what `hf auth login` stored) is not valid: make "
            f"a new one at {TOKENS}"
        )
    if isinstance(answered, errors.GatedRepoError):
        return f"access to {file.id} is gated: ask for it at {page}, then set the environment variable HF_TOKEN to your token"
    if unknown:
        return f"the hub shows no {kind} {file.id}: correct {key}.id, or set the environment variable HF_TOKEN if it is private"
    if isinstance(answered, errors.RevisionNotFoundError):
        return f"{file.id} has no commit {file.revision}: copy one from {page}/commits/main into {key}.revision"
    if status == 403:
        return (
            f"HF_TOKEN gives no access to {file.id}: let it read public gated repositories at {TOKENS}, or make a new one there"
        )
    if status == 429:
        return f"the hub limits the rate of requests and refused {file.id}: wait some minutes and run the command again"
    return None


def _not_written(error: Exception, file: HubFile) -> str | None:
    """What to do about an error of the local disk; None for one of the network."""
    from huggingface_hub import constants

    # Errors of the network that reach us have a class of their own, and the client's own errors no number.
    if not isinstance(error, OSError) or error.errno is None or isinstance(error, (ConnectionError, TimeoutError, gaierror)):
        return None
    return (
        f"{file.id} cannot be kept in the hub's cache {constants.HF_HUB_CACHE} ({error.strerror}): free space or make the folder "
        "writable, or set the environment variable HF_HOME to another one"
    )


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
        SourceError: without a pin, access, network, the files or room for them; for a mirror, if the folder is missing.
    """
    if file.path is not None:
        folder = Path(file.path)
        if not folder.is_dir():
            raise SourceError(
                f"{key}.path: no folder {file.path}; put the mirror of {file.id} there, or remove the key to use the hub"
            )
        return folder
    from huggingface_hub import errors, snapshot_download

    if not _pinned(file):
        raise SourceError(
            f"{key}.revision: {file.id} is not pinned to a commit: copy one from {_page(file, kind)}/commits/main (or from what "
            f"`saffron pin --config <file>` prints) into the config, or set {key}.path to a local mirror"
        )
    try:
        return Path(
            snapshot_download(file.id, repo_type=kind, revision=file.revision, allow_patterns=list(patterns), endpoint=endpoint)
        )
    except (OSError, errors.EntryNotFoundError, errors.HTTPError, ValueError) as error:
        problem = _refusal(error, file, key, kind) or _not_written(error, file)
        problem = problem or (
            f"{file.id} is not in the local cache and the hub did not answer ({type(error).__name__}): connect to the network, "
            f"or set {key}.path to a local mirror"
        )
    raise SourceError(f"{key}: {problem}")


#: Files up to this size are read whole for :func:`contents`; of larger ones so many windows of so many bytes.
WHOLE, WINDOWS, WINDOW = 1 << 26, 1 << 10, 1 << 12


def contents(path: Path) -> str:
    """16 hex digits of what a local file or folder holds, all folders below it included.

    Weights take gigabytes, and every dry run asks: of a large file its size and windows spread over all of it are read, so close
    that a matrix of a large model does not fit between two. Weights that were trained on differ in every window.
    """
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"\0{file.relative_to(path) if path.is_dir() else file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= WHOLE:
                digest.update(stream.read())
                continue
            for window in range(WINDOWS):
                stream.seek((size - WINDOW) * window // (WINDOWS - 1))
                digest.update(stream.read(WINDOW))
    return digest.hexdigest()[:16]
