"""One short key for everything a stored intermediate result depends on, so that stale ones are never used.

Resumable work (labelling blocks, training checkpoints, search blocks) is kept under such a key: the same job and input
bytes give the same key and find what is already there; any change gives another key and starts anew.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saffron import records


def fingerprint(settings: Any, files: Iterable[str | Path] = ()) -> str:
    """16 hex digits that change with the settings and the files' contents.

    Args:
        settings: plain JSON values, those of a job (:mod:`saffron.jobs`), the digest of its code among them.
        files: input files; a folder stands for the files directly in it, in the order of their names.

    Raises:
        RecordError: if a file is missing.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in files:
        for name, content in _contents(Path(path)):
            digest.update(f"\0{name}\0{content}".encode())
    return digest.hexdigest()[:16]


def _contents(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        raise records.RecordError(f"{path}: no such file; run the stage that makes it")
    files = sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]
    return [(file.name, _digest(file)) for file in files]


def _digest(file: Path) -> str:
    """A file's sha256; the hub's cache stores large files under it, so that the weights need not be read again for it."""
    stored = file.resolve()
    in_cache = file.is_symlink() and stored.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", stored.name)
    return stored.name if in_cache else records.sha256(file)
