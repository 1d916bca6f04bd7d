"""The paper's models from the hub, or from local mirrors: pinned snapshots as the folders that every later stage reads.

Weights are not copied: a model folder holds links to the snapshot's files. The tokenizer folder holds the policy's
tokenizer and ``chat_formats.json``, and is written only if policy and guard share one vocabulary and the chat formats
come back from both tokenizers unchanged.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from saffron import chat, records
from saffron.chat import ChatFormats
from saffron.config import Config, ConfigError, HubFile, HubModels
from saffron.hub import SourceError, fetch
from saffron.layout import Layout
from saffron.models import skeleton
from saffron.trie import TrieError, check_model

#: The chat formats of the paper's models: part of the project, not of a run.
CHAT_FORMATS = Path(__file__).resolve().parents[3] / "data" / "reference" / "paper" / chat.FILE
TOKENIZER_PATTERNS = ["tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "config.json"]
MODEL_PATTERNS = ["config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"]


def tokenizer(config: Config, layout: Layout) -> None:
    """Write ``layout.tokenizer``: the policy's tokenizer files and chat_formats.json.

    Raises:
        SourceError: if a model cannot be had, or policy and guard differ in vocabulary.
        ChatFormatError: if a chat format is not these tokenizers'.
    """
    hub = _section(config)
    formats = ChatFormats.load(hub.chat_formats or CHAT_FORMATS, policy=hub.policy_format)
    folders = {role: _folder(file, role, TOKENIZER_PATTERNS) for role, file in _roles(hub).items()}
    tokenizers = {role: load_tokenizer(folder, f"models.hub.{role}") for role, folder in folders.items()}
    check_one_vocabulary(tokenizers["policy"], tokenizers["guard"], formats)
    check_one_width(folders["policy"], folders["guard"])
    for one in tokenizers.values():
        formats.verify(one)
    with records.replacing_folder(layout.tokenizer) as target:
        for pattern in TOKENIZER_PATTERNS[:-1]:
            for path in sorted(folders["policy"].glob(pattern)):
                shutil.copyfile(path, target / path.name)
        formats.save(target)


def policy(config: Config, layout: Layout, seed: int) -> None:
    """Write the policy's folder; the snapshot is the same for every seed.

    Raises:
        SourceError: if the model cannot be had, or is not one in safetensors that the engine drives.
    """
    _link(_section(config).policy, "policy", layout.model("policy", seed))


def guard(config: Config, layout: Layout, seed: int) -> None:
    """Write the guard's folder; the snapshot is the same for every seed.

    Raises:
        SourceError: if the model cannot be had, or is not one in safetensors that the engine drives.
    """
    _link(_section(config).guard, "guard", layout.model("guard", seed))


def judge(config: Config, layout: Layout, seed: int) -> None:
    """Write the independent judge's folder; the snapshot is the same for every seed.

    Raises:
        ConfigError: if the config names no judge.
        SourceError: as of :func:`guard`, or if its vocabulary is not the guard's.
        ChatFormatError: if a chat format is not its tokenizer's.
    """
    file, guard = _section(config).judge, _section(config).guard
    if file is None:
        raise ConfigError("models.hub.judge: null; name a judge of the guard's vocabulary and chat format")
    roles = {"judge": file, "guard": guard}
    folders = {role: _folder(of, role, TOKENIZER_PATTERNS) for role, of in roles.items()}
    words = {role: _words(load_tokenizer(folder, f"models.hub.{role}")) for role, folder in folders.items()}
    if words["judge"] != words["guard"]:
        raise SourceError("models.hub.judge: its vocabulary is not the guard's; take a judge of the guard's model family")
    ChatFormats.load(layout.tokenizer).verify(load_tokenizer(folders["judge"], "models.hub.judge"))
    _link(file, "judge", layout.model("judge", seed))


def check_one_vocabulary(policy: Any, guard: Any, formats: ChatFormats) -> None:
    """Policy and guard must share one vocabulary, since the MRM scores the policy's next tokens by the guard's ids.

    Special tokens that no chat format uses may differ in name: Llama 3 and Llama Guard 3 name some reserved ones
    differently.

    Raises:
        SourceError: naming sizes or a token that differs.
    """
    ours, theirs = policy.get_vocab(), guard.get_vocab()
    remedy = "the MRM scores the policy's tokens by the guard's ids: take a guard (models.hub.guard) of the policy's model family"
    if len(ours) != len(theirs):
        raise SourceError(f"models.hub: the policy's vocabulary has {len(ours)} tokens, the guard's {len(theirs)}; {remedy}")
    free = (set(policy.added_tokens_decoder) & set(guard.added_tokens_decoder)) - formats.ids
    differing = sorted(id for token, id in ours.items() if theirs.get(token) != id and id not in free)
    if differing:
        first = f"{differing[0]} ({policy.convert_ids_to_tokens(differing[0])!r} in the policy)"
        raise SourceError(f"models.hub: {len(differing)} tokens differ between policy and guard, first {first}; {remedy}")


def check_one_width(policy: Path, guard: Path) -> None:
    """Both models must have as many logits: one tokenizer may stand over unembeddings padded to different widths.

    Raises:
        SourceError: naming both widths.
    """
    ours, theirs = (records.read_json(folder / "config.json").get("vocab_size") for folder in (policy, guard))
    if ours != theirs:
        raise SourceError(
            f"models.hub: the policy gives {ours} logits, the guard {theirs}; the MRM scores the policy's tokens one by one: "
            "take a guard (models.hub.guard) of as many"
        )


def _words(tokenizer: Any) -> dict[str, int]:
    """The vocabulary without special tokens, whose names differ within a model family."""
    return {token: id for token, id in tokenizer.get_vocab().items() if id not in tokenizer.added_tokens_decoder}


def load_tokenizer(folder: Path, key: str) -> Any:
    """The tokenizer in a local folder.

    Raises:
        SourceError: if there is none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{key}: no readable tokenizer in {folder} ({str(error).splitlines()[0]}); check the revision or mirror"
        ) from None


def _section(config: Config) -> HubModels:
    assert config.models.hub is not None  # checked by config.Models
    return config.models.hub


def _roles(hub: HubModels) -> dict[str, HubFile]:
    return {"policy": hub.policy, "guard": hub.guard}


def _folder(file: HubFile, role: str, patterns: list[str]) -> Path:
    return fetch(file, f"models.hub.{role}", "model", patterns)


def _link(file: HubFile, role: str, target: Path) -> None:
    """Link a snapshot's model files into ``target`` after a look at what they are."""
    source = _folder(file, role, MODEL_PATTERNS)
    files = sorted({path for pattern in MODEL_PATTERNS for path in source.glob(pattern)})
    names = {path.name for path in files}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise SourceError(
            f"models.hub.{role}: {source} lacks config.json or model*.safetensors; only safetensors weights are read: "
            "check the revision or mirror"
        )
    _check_drivable(source, role)
    with records.replacing_folder(target) as folder:
        for path in files:
            os.symlink(path.resolve(), folder / path.name)


def _check_drivable(source: Path, role: str) -> None:
    try:
        check_model(skeleton(source))
    except (TrieError, ValueError, KeyError, OSError) as error:
        raise SourceError(
            f"models.hub.{role}: the engine cannot drive the model in {source} ({str(error).splitlines()[0]}); take one of the "
            "Llama, Mistral, Qwen2 or Qwen3 class"
        ) from None
