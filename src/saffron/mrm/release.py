"""The authors' released Saffron-1 as an alternative to training, and ours in the release's layout.

A release is a folder with a PEFT adapter (``adapter_config.json``, ``adapter_model.safetensors``), ``lm_head_bias.pt`` and
``unseen_mask.pt``. Its bias is left out unless ``mrm.released_bias`` says otherwise: it is an untouched initialisation, which
the released code never adds to a logit (``docs/paper.md``, "Where they differ"). Pickled files are read weights-only.
"""

from __future__ import annotations

import logging
import math
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from saffron import exhausted, models, records
from saffron.config import MRM, LoraModule, as_dict
from saffron.jobs import TrainJob, beside
from saffron.layout import Layout

log = logging.getLogger(__name__)

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
BIAS, MASK = "lm_head_bias.pt", "unseen_mask.pt"
FILES = (ADAPTER_CONFIG, ADAPTER, BIAS, MASK)
#: Fields of an adapter's description that are checked here, that peft's merge reads, or that matter in training alone.
HONOURED = (
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode"),
    *("r", "lora_alpha", "target_modules", "use_rslora", "alpha_pattern", "lora_dropout"),
)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


#: Fields that rank and scale of an adapter follow from: what they have to be.
_NUMBERS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("r", "a whole number from 1 on", lambda value: _positive(value) and isinstance(value, int)),
    ("lora_alpha", "a number above 0", _positive),
    ("use_rslora", "true or false", lambda value: value is None or isinstance(value, bool)),
    (
        "alpha_pattern",
        "numbers above 0 by module",
        lambda value: value is None or (isinstance(value, dict) and all(map(_positive, value.values()))),
    ),
)


class ReleaseError(ValueError):
    """A release that is incomplete or not for this guard; names the file and what was expected."""


def load(job: TrainJob, layout: Layout) -> None:
    """Verify the release named by ``mrm.released`` and write the files that training writes, ``losses.parquet`` excepted.

    Raises:
        ReleaseError: on a missing file, another number, name, shape or dtype of tensors, or another number of unseen tokens.
    """
    settings = job.mrm
    source = require_files(settings)
    guard = models.load_lm(layout.model("guard", job.seed), job.runtime, device_map=job.device_map)
    found = read(source, guard, settings)
    bias = found.bias if settings.released_bias else torch.zeros_like(found.bias)
    folder = layout.mrm(job.seed, job.variant)
    with records.replacing_folder(folder / "adapter") as temporary:
        save_file(found.adapter, temporary / ADAPTER, {"format": "pt"})
        described = records.read_json(source / ADAPTER_CONFIG)
        records.write_json(temporary / ADAPTER_CONFIG, {**described, "base_model_name_or_path": job.base})
    with records.replacing_folder(folder / "merged") as temporary:
        found.merged.save_pretrained(temporary)
    models.save_mrm_head(folder, bias, found.unseen)
    records.write_json(beside(folder), as_dict(job))
    log.info("released MRM: %d tensors merged, bias %s", len(found.adapter), "added" if settings.released_bias else "left out")


@dataclass(frozen=True)
class Release:
    """What a release holds.

    Attributes:
        merged: the guard with the adapter merged in; its lm_head has no bias yet.
        adapter: the adapter's tensors by name.
        bias: [V] of the lm_head, float32.
        unseen: [V] bool, tokens that were never a target.
    """

    merged: Any
    adapter: dict[str, Tensor]
    bias: Tensor
    unseen: Tensor


def read(source: Path, guard: Any, settings: MRM | None = None) -> Release:
    """Read a release; the guard becomes part of it.

    Args:
        source: its folder.
        guard: the model that the adapter was trained on.
        settings: what a config says of it (None: nothing is expected).

    Raises:
        ReleaseError: on a file that cannot be read or is not for this guard, or that is not what the settings say.
    """
    adapter = read_adapter(source, guard, settings)
    vocabulary = guard.get_output_embeddings().out_features
    unseen = read_mask(source, vocabulary, None if settings is None else settings.released_unseen)
    return Release(merge(guard, source, adapter), adapter, read_bias(source, vocabulary), unseen)


def require_files(settings: MRM) -> Path:
    """The folder of the release; a run asks before its first job whether it is complete.

    Raises:
        ReleaseError: if the folder or one of its files is missing.
    """
    assert settings.released is not None  # checked by config.MRM
    source = Path(settings.released)
    if missing := missing_files(source):
        what = f"{source} lacks {', '.join(missing)}" if source.is_dir() else f"no folder {source}"
        raise ReleaseError(f"mrm.released: {what}; it must name the release's whole folder, which holds {', '.join(FILES)}")
    return source


def missing_files(source: Path) -> list[str]:
    """Files of a release that a folder lacks."""
    return [name for name in FILES if not (source / name).is_file()]


def export(folder: Path, released: Path) -> None:
    """Write one of our MRMs (``folder`` as training leaves it) in the release's layout; its bias is rounded to bfloat16.

    Raises:
        ReleaseError: if the MRM is not there, starts from another lm_head than the guard's, for which the layout has no place,
            or ``released`` exists and is not empty.
    """
    head, adapter = folder / models.HEAD, folder / "adapter"
    if not head.exists() or not (adapter / ADAPTER).exists():
        raise ReleaseError(f"{folder}: no trained MRM here; run the stage mrm")
    if released.exists() and any(released.iterdir()):
        raise ReleaseError(f"{released}: not empty; name a new folder")
    settings = records.read_json(beside(folder), ("mrm",))["mrm"]
    if settings.get("unembedding_scale", 1) != 1 or settings.get("centred_verdicts"):
        raise ReleaseError(
            f"{folder}: trained with mrm.unembedding_scale or mrm.centred_verdicts, and the release's layout has no lm_head"
        )
    tensors, trained = records.read_tensors(head), records.read_tensors(adapter / ADAPTER)
    with records.replacing_folder(released) as temporary:
        save_file({name: tensor.float() for name, tensor in trained.items()}, temporary / ADAPTER, {"format": "pt"})
        shutil.copyfile(adapter / ADAPTER_CONFIG, temporary / ADAPTER_CONFIG)
        torch.save(nn.Parameter(tensors["lm_head_bias"].bfloat16()), temporary / BIAS)
        torch.save(tensors["unseen_mask"].bool(), temporary / MASK)


def expected_shapes(guard: Any, rank: int, modules: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Shape of every adapter tensor by name: two per layer and module (64 in the release: 16 layers, q_proj and v_proj)."""
    shapes: dict[str, tuple[int, int]] = {}
    for number, layer in enumerate(guard.model.layers):
        for module in modules:
            part = "self_attn" if hasattr(layer.self_attn, module) else "mlp"
            name = f"base_model.model.model.layers.{number}.{part}.{module}"
            linear = getattr(getattr(layer, part), module)
            shapes |= {f"{name}.lora_A.weight": (rank, linear.in_features), f"{name}.lora_B.weight": (linear.out_features, rank)}
    return shapes


def read_adapter(source: Path, guard: Any, settings: MRM | None) -> dict[str, Tensor]:
    """The adapter's tensors, checked against the guard's layers, and against the rank and alpha that a config says.

    Raises:
        ReleaseError: naming the first thing that differs.
    """
    try:
        described = records.read_json(source / ADAPTER_CONFIG)
        tensors = records.read_tensors(source / ADAPTER)
    except records.RecordError as error:
        raise ReleaseError(f"{source} lacks a readable {ADAPTER_CONFIG} or {ADAPTER} ({error}); fetch it again") from None
    check_description(described, source / ADAPTER_CONFIG)
    configured = () if settings is None else (("r", settings.lora_rank), ("lora_alpha", settings.lora_alpha))
    for name, value in configured:
        if described.get(name) != value:
            key = {"r": "lora_rank", "lora_alpha": "lora_alpha"}[name]
            raise ReleaseError(
                f"{source / ADAPTER_CONFIG}: {name} is {described.get(name)}, but mrm.{key} is {value}; make them agree"
            )
    modules = described.get("target_modules")
    if not isinstance(modules, list) or not modules or not set(modules) <= set(get_args(LoraModule)):
        raise ReleaseError(
            f"{source / ADAPTER_CONFIG}: target_modules is {modules!r}; an MRM has LoRA on some of "
            f"{', '.join(get_args(LoraModule))}"
        )
    if settings is not None and sorted(modules) != sorted(settings.lora_modules):
        raise ReleaseError(
            f"{source / ADAPTER_CONFIG}: target_modules is {modules!r}, but mrm.lora_modules is {settings.lora_modules!r}; make "
            "them agree"
        )
    shapes = expected_shapes(guard, described["r"], modules)
    if len(tensors) != len(shapes):
        raise ReleaseError(
            f"{source / ADAPTER}: {len(tensors)} tensors, the guard takes {len(shapes)}; it is another model's adapter"
        )
    for name, shape in shapes.items():
        found = tensors.get(name)
        if found is None or tuple(found.shape) != shape or found.dtype != torch.float32:
            what = "missing" if found is None else f"{found.dtype} of shape {tuple(found.shape)}"
            raise ReleaseError(
                f"{source / ADAPTER}: {name} is {what}, expected float32 of shape {shape}; it is another model's adapter"
            )
    return tensors


def read_mask(source: Path, vocabulary: int, unseen: int | None) -> Tensor:
    """BoolTensor[V], true for tokens never seen as a target; ``unseen`` of them, unless it is None.

    Raises:
        ReleaseError: if it is not that, or another number of tokens is unseen.
    """
    mask = _read_pickled(source / MASK)
    if mask.dtype != torch.bool or tuple(mask.shape) != (vocabulary,):
        raise ReleaseError(f"{source / MASK}: {mask.dtype} of shape {tuple(mask.shape)}, expected bool of shape ({vocabulary},)")
    if unseen is not None and int(mask.sum()) != unseen:
        raise ReleaseError(
            f"{source / MASK}: {int(mask.sum())} unseen tokens, mrm.released_unseen says {unseen}; is it this release?"
        )
    return mask.clone()


def read_bias(source: Path, vocabulary: int) -> Tensor:
    """Tensor[V], the lm_head bias.

    Raises:
        ReleaseError: if it is not that.
    """
    bias = _read_pickled(source / BIAS)
    if not bias.is_floating_point() or tuple(bias.shape) != (vocabulary,):
        raise ReleaseError(
            f"{source / BIAS}: {bias.dtype} of shape {tuple(bias.shape)}, expected numbers of shape ({vocabulary},)"
        )
    return bias.detach().float()


def check_description(described: Mapping[str, Any], path: Path) -> None:
    """Refuse an adapter that is more than LoRA on some linear layers, and one that a newer peft describes in fields of its own.

    What scales LoRA (``use_rslora``, ``alpha_pattern``) is peft's to read, which merges it.

    Args:
        described: content of ``adapter_config.json``.
        path: its file, for messages.

    Raises:
        ReleaseError: naming the field.
    """
    from peft import LoraConfig

    if described.get("peft_type") != "LORA":
        raise ReleaseError(
            f"{path}: peft_type is {described.get('peft_type')}, but only LORA can be merged into the guard; take a LoRA adapter"
        )
    for name, what, right in _NUMBERS:
        if (name in described or name == "r") and not right(described.get(name)):
            raise ReleaseError(f"{path}: {name} is {described.get(name)!r}, expected {what}; fetch it again")
    plain = LoraConfig().to_dict()
    for name, value in described.items():
        if name in HONOURED or not value or value in (plain.get(name), "gaussian"):
            continue
        raise ReleaseError(
            f"{path}: {name} is {value!r}, which is not read here: an MRM is the guard's own weights with LoRA of one rank on "
            "some of its linear layers; take a release of that kind, or train with mrm.from: train"
        )


def merge(guard: Any, source: Path, adapter: dict[str, Tensor]) -> Any:
    """The guard with the adapter merged in as peft does it, with the scale that ``adapter_config.json`` describes.

    Raises:
        ReleaseError: if a tensor has no place.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    try:
        config = LoraConfig.from_pretrained(str(source))
        config.base_model_name_or_path = guard.name_or_path  # what it is merged into, as peft would otherwise warn
        with torch.random.fork_rng():  # layers are initialised before their tensors are read
            adapted = get_peft_model(guard, config)
    except Exception as error:  # what an odd value in a description ends in varies
        if exhausted.explained(error):
            raise
        raise ReleaseError(f"{source / ADAPTER_CONFIG}: peft cannot read it ({models.one_line(error)}); fetch it again") from None
    found: Any = set_peft_model_state_dict(adapted, adapter)
    left = [name for name in found.missing_keys if "lora_" in name]
    if found.unexpected_keys or left:
        name = [*found.unexpected_keys, *left][0]
        raise ReleaseError(f"{source / ADAPTER_CONFIG}: target_modules does not fit {name} in {ADAPTER}; fetch both again")
    return adapted.merge_and_unload()


def _read_pickled(path: Path) -> Tensor:
    """A tensor from a ``.pt`` file written on any device; only tensors are unpickled."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        if exhausted.explained(error):
            raise
        cause = next(iter(str(error).splitlines()), type(error).__name__)  # what a damaged file ends in varies
        raise ReleaseError(f"{path}: not a file of tensors alone ({cause}); fetch it again") from None
    if not isinstance(value, Tensor):
        raise ReleaseError(f"{path}: holds {type(value).__name__}, expected a tensor")
    if value.layout != torch.strided or value.device.type != "cpu":
        raise ReleaseError(f"{path}: holds a tensor of layout {value.layout} on {value.device}, expected plain numbers")
    return value
