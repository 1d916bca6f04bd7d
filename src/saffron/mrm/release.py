"""The authors' released Saffron-1 as an alternative to training, and ours in the release's layout.

A release is a folder with a PEFT adapter (``adapter_config.json``, ``adapter_model.safetensors``), ``lm_head_bias.pt`` and
``unseen_mask.pt``. Its bias is left out unless ``mrm.released_bias`` says otherwise: it is an untouched initialisation, which
the released code never adds to a logit (``docs/paper.md``, "Where they differ"). Pickled files are read weights-only.
"""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from saffron import models, records
from saffron.config import MRM, as_dict
from saffron.jobs import TrainJob, beside
from saffron.layout import Layout
from saffron.mrm.model import LORA_MODULES

log = logging.getLogger(__name__)

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
BIAS, MASK = "lm_head_bias.pt", "unseen_mask.pt"
FILES = (ADAPTER_CONFIG, ADAPTER, BIAS, MASK)


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
    adapter = read_adapter(source, guard, settings)
    vocabulary = guard.get_output_embeddings().out_features
    unseen, bias = read_mask(source, vocabulary, settings.released_unseen), read_bias(source, vocabulary)
    merge(guard, adapter, settings.lora_alpha / settings.lora_rank)
    folder = layout.mrm(job.seed, job.variant)
    with records.replacing_folder(folder / "adapter") as temporary:
        save_file(adapter, temporary / ADAPTER, {"format": "pt"})
        described = records.read_json(source / ADAPTER_CONFIG)
        records.write_json(temporary / ADAPTER_CONFIG, {**described, "base_model_name_or_path": job.base})
    with records.replacing_folder(folder / "merged") as temporary:
        guard.save_pretrained(temporary)
    models.save_mrm_head(folder, bias if settings.released_bias else torch.zeros_like(bias), unseen)
    records.write_json(beside(folder), as_dict(job))
    log.info("released MRM: %d tensors merged, bias %s", len(adapter), "added" if settings.released_bias else "left out")


def require_files(settings: MRM) -> Path:
    """The folder of the release; a run asks before its first job whether it is complete.

    Raises:
        ReleaseError: if the folder or one of its files is missing.
    """
    assert settings.released is not None  # checked by config.MRM
    source = Path(settings.released)
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        what = f"{source} lacks {', '.join(missing)}" if source.is_dir() else f"no folder {source}"
        raise ReleaseError(f"mrm.released: {what}; it must name the release's whole folder, which holds {', '.join(FILES)}")
    return source


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
    settings = records.read_json(beside(folder))["mrm"]
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


def expected_shapes(guard: Any, rank: int) -> dict[str, tuple[int, int]]:
    """Shape of every adapter tensor by name: four per layer (64 for the 16 layers of Llama Guard 3 1B)."""
    shapes: dict[str, tuple[int, int]] = {}
    for number, layer in enumerate(guard.model.layers):
        for module in LORA_MODULES:
            name = f"base_model.model.model.layers.{number}.self_attn.{module}"
            linear = getattr(layer.self_attn, module)
            shapes |= {f"{name}.lora_A.weight": (rank, linear.in_features), f"{name}.lora_B.weight": (linear.out_features, rank)}
    return shapes


def read_adapter(source: Path, guard: Any, settings: MRM) -> dict[str, Tensor]:
    """The adapter's tensors, checked against the guard's layers and the configured rank and alpha.

    Raises:
        ReleaseError: naming the first thing that differs.
    """
    try:
        described = records.read_json(source / ADAPTER_CONFIG)
        tensors = records.read_tensors(source / ADAPTER)
    except records.RecordError as error:
        raise ReleaseError(
            f"mrm.released: {source} lacks a readable {ADAPTER_CONFIG} or {ADAPTER} ({error}); fetch it again"
        ) from None
    for name, value in (("r", settings.lora_rank), ("lora_alpha", settings.lora_alpha)):
        if described.get(name) != value:
            key = {"r": "lora_rank", "lora_alpha": "lora_alpha"}[name]
            raise ReleaseError(
                f"{source / ADAPTER_CONFIG}: {name} is {described.get(name)}, but mrm.{key} is {value}; make them agree"
            )
    shapes = expected_shapes(guard, settings.lora_rank)
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


def read_mask(source: Path, vocabulary: int, unseen: int) -> Tensor:
    """BoolTensor[V], true for tokens never seen as a target.

    Raises:
        ReleaseError: if it is not that, or another number of tokens is unseen.
    """
    mask = _read_pickled(source / MASK)
    if mask.dtype != torch.bool or tuple(mask.shape) != (vocabulary,):
        raise ReleaseError(f"{source / MASK}: {mask.dtype} of shape {tuple(mask.shape)}, expected bool of shape ({vocabulary},)")
    if int(mask.sum()) != unseen:
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


def merge(guard: Any, adapter: dict[str, Tensor], scale: float) -> None:
    """Add ``scale * B A`` to each adapted weight, in place, summed in float32."""
    for number, layer in enumerate(guard.model.layers):
        for module in LORA_MODULES:
            name = f"base_model.model.model.layers.{number}.self_attn.{module}"
            weight = getattr(layer.self_attn, module).weight
            change = scale * (adapter[f"{name}.lora_B.weight"] @ adapter[f"{name}.lora_A.weight"])
            with torch.no_grad():
                weight.copy_(weight.float() + change.to(weight.device))


def _read_pickled(path: Path) -> Tensor:
    """A tensor from a ``.pt`` file written on any device; only tensors are unpickled."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ReleaseError(f"{path}: not a file of tensors alone ({str(error).splitlines()[0]}); fetch it again") from None
    if not isinstance(value, Tensor):
        raise ReleaseError(f"{path}: holds {type(value).__name__}, expected a tensor")
    return value
