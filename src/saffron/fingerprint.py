"""One short key for everything a stored intermediate result depends on, so that stale ones are never used.

Resumable work (labelling blocks, training checkpoints, search blocks) is kept under such a key: the same settings, input
bytes and source code give the same key and find what is already there; any change gives another key and starts anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saffron import records


def fingerprint(settings: Any, files: Iterable[str | Path] = (), modules: Iterable[str] = ()) -> str:
    """16 hex digits that change with the settings, the files' contents and the modules' source text.

    Args:
        settings: plain JSON values (for instance ``config.as_dict(section)``).
        files: input files; a folder stands for the files directly in it, in the order of their names.
        modules: names of Python modules; a package stands for all its own modules.

    Raises:
        RecordError: if a file or a module is missing.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in files:
        for name, content in _contents(Path(path)):
            digest.update(f"\0{name}\0{content}".encode())
    for module in modules:
        for source in _sources(module):
            digest.update(f"\0{module}\0{source.name}\0".encode())
            digest.update(source.read_bytes())
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


def _sources(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise records.RecordError(f"{module}: no such module; a fingerprint names the code a result depends on")
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
