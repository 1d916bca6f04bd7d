"""The paper's models from the hub, or from local mirrors: pinned snapshots as the folders that every later stage reads.

Weights are not copied: a model folder holds links to the snapshot's files, or to those of a Python package's model once it is
dequantised. Only what is trained here is written out: a policy with a refusal tuning, and a guard of the policy's first layers.
The tokenizer folder holds the policy's tokenizer and ``chat_formats.json``, and is written only if policy and guard share one
vocabulary and the chat formats come back from both tokenizers unchanged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from saffron import chat, exhausted, records
from saffron.chat import ChatFormats
from saffron.config import ChatTexts, HubFile, HubModels, PackageModel, TruncatedGuard, as_dict
from saffron.engine.forward import check_model
from saffron.hub import SourceError, fetch
from saffron.jobs import ModelJob, beside
from saffron.layout import PAPER, Layout
from saffron.models import checkpoint as checks
from saffron.models import packages
from saffron.models.formats import of_texts
from saffron.models.loading import one_line, skeleton

#: The chat formats of the paper's models: part of the project, not of a run.
CHAT_FORMATS = PAPER / chat.FILE
#: By name: what else lies in a repository, code among it, is not fetched.
TOKENIZER_PATTERNS = ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
TOKENIZER_PATTERNS += ["special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"]
TOKENIZER_PATTERNS += ["chat_template*.jinja", "config.json"]
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WEIGHTS, INDEX = checks.WEIGHTS, checks.INDEX
MODEL_PATTERNS = ["config.json", "generation_config.json", "model*.safetensors", INDEX, checks.ADAPTER_CONFIG]


def tokenizer(job: ModelJob, layout: Layout) -> None:
    """Write ``layout.tokenizer``: the policy's tokenizer files and chat_formats.json.

    Raises:
        SourceError: if a model cannot be read, or policy and guard differ in vocabulary.
        ChatFormatError: if a chat format is not these tokenizers'.
    """
    hub = section(job)
    own = hub.chat_formats
    stored = None if isinstance(own, ChatTexts) else ChatFormats.load(own or CHAT_FORMATS, policy=hub.policy_format)
    folders = {role: _folder(file, f"models.hub.{role}", TOKENIZER_PATTERNS, layout) for role, file in _roles(hub).items()}
    tokenizers = {role: load_tokenizer(folder, f"models.hub.{role}") for role, folder in folders.items()}
    formats = of_texts(own, tokenizers["policy"], tokenizers["guard"]) if isinstance(own, ChatTexts) else stored
    assert formats is not None
    formats = replace(formats, control_tokens_in_text=hub.control_tokens_in_text)
    check_one_vocabulary(tokenizers["policy"], tokenizers["guard"], formats)
    widths: dict[str, Any] = {role: _config(folder, f"models.hub.{role}").get("vocab_size") for role, folder in folders.items()}
    check_one_width(widths["policy"], widths["guard"])
    for role, one in tokenizers.items():
        with _refusing(f"models.hub.{role}"):
            checks.check_tokens(one.get_vocab(), widths[role])
    for one in tokenizers.values():
        formats.verify(one)
    with records.replacing_folder(layout.tokenizer) as target:
        for pattern in TOKENIZER_PATTERNS[:-1]:
            for path in sorted(folders["policy"].glob(pattern)):
                shutil.copyfile(path, target / path.name)
        formats.save(target)
    records.write_json(beside(layout.tokenizer), as_dict(job))


def checkpoint(file: HubFile, key: str, layout: Layout) -> Path:
    """The folder of another guard, a snapshot or a mirror, after a look at it.

    Args:
        file: the guard.
        key: where it stands in the config, for messages.
        layout: of the run whose tokenizer and chat formats it must share.

    Raises:
        SourceError: as of :func:`guard`, or if its vocabulary is not the guard's.
        ChatFormatError: if a chat format is not its tokenizer's.
    """
    own = load_tokenizer(fetch(file, key, "model", TOKENIZER_PATTERNS), key)
    if _words(own) != _words(load_tokenizer(layout.tokenizer, "the run's tokenizer")):
        raise SourceError(f"{key}: its vocabulary is not the guard's; take a guard of the same model family")
    ChatFormats.load(layout.tokenizer).verify(own)
    return whole(file, key, layout)


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


def check_one_width(policy: int, guard: int) -> None:
    """Both models must have as many logits: one tokenizer may stand over lm_heads padded to different widths.

    Raises:
        SourceError: naming both widths.
    """
    if policy != guard:
        raise SourceError(
            f"models.hub: the policy gives {policy} logits, the guard {guard}; the MRM scores the policy's tokens one by one: "
            "take a guard (models.hub.guard) of as many"
        )


def _config(folder: Path, key: str) -> dict[str, Any]:
    """A model's ``config.json``, if it describes what can be read here."""
    try:
        config = records.read_json(folder / "config.json")
    except records.RecordError as error:
        raise SourceError(f"{key}: {error.args[0].partition(';')[0]}; check the revision or mirror") from None
    with _refusing(key):
        checks.check_config(config)
    return config


@contextlib.contextmanager
def _refusing(key: str) -> Iterator[None]:
    """Name the model of a refusal."""
    try:
        yield
    except ValueError as error:
        raise SourceError(f"{key}: {error}") from None


def _words(tokenizer: Any) -> dict[str, int]:
    """The vocabulary without special tokens, whose names differ within a model family."""
    special = set(tokenizer.added_tokens_decoder)  # a property that takes long, so not once per token
    return {token: id for token, id in tokenizer.get_vocab().items() if id not in special}


def load_tokenizer(folder: Path, key: str) -> Any:
    """The tokenizer in a local folder.

    Raises:
        SourceError: if there is none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        checks.check_json(folder, checks.TOKENIZER_JSON)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if exhausted.explained(error):
            raise
        raise SourceError(
            f"{key}: no readable tokenizer in {folder} ({str(error).splitlines()[0]}); check the revision or mirror"
        ) from None


def section(job: ModelJob) -> HubModels:
    """The section of a job of such models."""
    assert job.models.hub is not None  # checked by config.Models
    return job.models.hub


def _roles(hub: HubModels) -> dict[str, HubFile | PackageModel]:
    """Whose tokenizers must agree."""
    return {"policy": hub.policy, "guard": _of_guard(hub)}


def _of_guard(hub: HubModels) -> HubFile | PackageModel:
    """Where the guard's tokenizer is; one made of the policy has the policy's."""
    return hub.policy if isinstance(hub.guard, TruncatedGuard) else hub.guard


def _folder(file: HubFile | PackageModel, key: str, patterns: list[str], layout: Layout) -> Path:
    if isinstance(file, PackageModel):
        return packages.fetch(file, key, layout.packages)
    return fetch(file, key, "model", patterns)


def link(file: HubFile | PackageModel, job: ModelJob, layout: Layout) -> None:
    """Link a model's files into its folder after a look at them."""
    assert job.seed is not None
    target, source = layout.model(job.which, job.seed), whole(file, f"models.hub.{job.which}", layout)
    with records.replacing_folder(target) as folder:
        for path in _model_files(source):
            os.symlink(path.resolve(), folder / path.name)
    records.write_json(beside(target), as_dict(job))


def _model_files(source: Path) -> list[Path]:
    return sorted({path for pattern in MODEL_PATTERNS for path in source.glob(pattern)})


def _again(file: HubFile | PackageModel, source: Path) -> str:
    """How to get a broken model anew."""
    if isinstance(file, PackageModel):
        return f"delete {source}, and it is made again from the package"
    if file.path:
        return f"fetch the mirror {file.path} again"
    return f"run `hf download {file.id} --revision {file.revision} --force-download` to fetch it again"


def whole(file: HubFile | PackageModel, key: str, layout: Layout) -> Path:
    """The folder of a model that can be driven and is whole; of the weights only headers are read."""
    source = _folder(file, key, MODEL_PATTERNS, layout)
    names = {path.name for path in _model_files(source)}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise SourceError(
            f"{key}: {source} lacks config.json or model*.safetensors; only safetensors weights are read: "
            "check the revision or mirror"
        )
    with _refusing(f"{key}: {source}"):
        checks.check_json(source, checks.MODEL_JSON)
        checks.check_alone(source)
    config = _config(source, key)
    model = _drivable(source, key)
    with _refusing(key):
        checks.check_class(config, model)
    try:
        stored = check_weights(source, {name: tuple(parameter.shape) for name, parameter in model.named_parameters()})
    except SourceError as error:
        raise SourceError(f"{key}: {error}; {_again(file, source)}") from None
    every = dict(model.named_parameters(remove_duplicate=False))
    with _refusing(key):
        checks.check_keys(stored, dict(model.named_parameters()), every)
        checks.check_numbers(_weight_files(source))
        if HEAD in stored and HEAD not in dict(model.named_parameters()):  # tied by the config, and stored all the same
            checks.check_tied(*(_tensor(source, name) for name in (EMBEDDINGS, HEAD)))
    return source


def _tensor(folder: Path, name: str) -> Any:
    """One tensor of the weights in a folder."""
    for path in _weight_files(folder):
        with safe_open(path, "pt") as stream:
            if name in stream.keys():  # noqa: SIM118  # no mapping
                return stream.get_tensor(name)
    raise SourceError(f"the weights in {folder} lack {name}")


def check_weights(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Refuse weights that would not load, or not all of them, once a GPU has been waited for; reads no tensor.

    A mirror that was cut short, git without its large files, and a hub's cache filled in part all look like a model.

    Args:
        folder: of the model.
        shapes: of the tensors it must hold, by name; a tied lm_head is not among them.

    Returns:
        The names of all tensors that it holds.

    Raises:
        SourceError: naming the file and what is wrong with it.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, "pt") as stream:
                found |= {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118  # no mapping
        except FileNotFoundError:
            by = "a link" if path.is_symlink() else INDEX
            raise SourceError(f"{path} is not there, though {by} names it") from None
        except (SafetensorError, OSError) as error:
            if exhausted.explained(error):
                raise
            raise SourceError(
                f"{path} is not a whole safetensors file ({str(error).splitlines()[0]}): cut short, or a pointer of git-lfs"
            ) from None
    if missing := [name for name in shapes if name not in found]:
        raise SourceError(f"the weights in {folder} lack {len(missing)} of the {len(shapes)} tensors, first {missing[0]}")
    for name, shape in shapes.items():
        if found[name] != shape:
            raise SourceError(f"{name} in {folder} is of shape {found[name]}, its config.json says {shape}")
    return set(found)


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads, in its order of preference.

    Raises:
        SourceError: if there is none, or the index names anything but safetensors files beside it.
    """
    if os.path.lexists(folder / WEIGHTS):  # also a link into a cache whose file is gone
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.exists():
        raise SourceError(f"{folder} has neither {WEIGHTS} nor {INDEX}, which names the parts")
    try:
        names = checks.parts(index)
    except ValueError as error:
        raise SourceError(str(error)) from None
    return [folder / name for name in names]


def _drivable(source: Path, key: str) -> Any:
    """The model's skeleton, if the engine can drive it."""
    try:
        model = skeleton(source)
        check_model(model)
    except Exception as error:  # what an odd value in a config ends in varies
        if exhausted.explained(error):
            raise
        raise SourceError(
            f"{key}: the engine cannot drive the model in {source} ({one_line(error)}); take one of the Llama, Mistral, Qwen2 or "
            "Qwen3 class"
        ) from None
    return model
