"""Training of the MRM on Safety4M (Eq. 5)."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from saffron import models, records
from saffron.chat import ChatFormats
from saffron.config import MRM, as_dict
from saffron.fingerprint import fingerprint
from saffron.jobs import TrainJob, beside
from saffron.layout import Layout
from saffron.mrm.model import MultifurcationRewardModel, prepare_head, squared_error
from saffron.mrm.targets import Batch, Targets, collate, schedule, steps

log = logging.getLogger(__name__)

BETAS, EPSILON = (0.9, 0.999), 1e-8
#: Points of a stored loss curve at most; longer trainings are averaged over equal windows.
CURVE = 2000


class TrainingError(ValueError):
    """A training that has left what can be computed; names the step and the remedy."""


def train(job: TrainJob, layout: Layout) -> None:
    """Train one variant, or load the released one: writes ``adapter/``, ``merged/``, ``head.safetensors`` and ``losses.parquet``.

    A killed training goes on from its last checkpoint, at most ``mrm.checkpoint_every`` steps back. In several
    processes (``mrm.processes``) the rows of each step are divided among them; the result differs by rounding only.

    Raises:
        RecordError: if labels, mask or models are missing, the labels have no train split, or a reward is not finite.
        TrainingError: if the loss is not finite.
        ReleaseError: if ``mrm.from`` is ``released`` and the release does not fit.
    """
    settings, seed = job.mrm, job.seed
    folder = layout.mrm(seed, job.variant)
    if settings.origin == "released":
        from saffron.mrm import release

        return release.load(job, layout)
    torch.set_num_threads(job.runtime.torch_threads)
    device = models.device_of(job.runtime)
    accelerator = Accelerator(cpu=device.type == "cpu")
    formats = ChatFormats.load(layout.tokenizer)
    labels = layout.safety4m(seed) / "labels.parquet"
    table = records.read_table(labels, records.SAFETY4M)
    records.check_rewards(table, labels)
    targets = Targets(table[table["split"] == "train"], formats, settings.order)
    if not len(targets):
        raise records.RecordError(f"{labels}: no labels in the train split; nothing to train the MRM on")

    if accelerator.is_main_process:
        log.info("training in %d process%s", accelerator.num_processes, "es" if accelerator.num_processes > 1 else "")
    # A device map would spread each process's model over the GPUs of all.
    device_map = job.device_map if accelerator.num_processes == 1 else None
    guard = models.load_lm(layout.model("guard", seed), job.runtime, device_map=device_map)
    prepare_head(guard, settings.unembedding_scale, (formats.safe_id, formats.unsafe_id) if settings.centred_verdicts else ())
    model = MultifurcationRewardModel(
        guard,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        modules=settings.lora_modules,
        bias=settings.variants[job.variant].bias,
        seed=seed + settings.draw,
    )
    key = fingerprint([job.key, accelerator.num_processes], [labels, layout.model("guard", seed), layout.tokenizer])
    checkpoints = folder.parent / f".checkpoint-{job.variant}"
    losses = fit(model, targets, settings, seed + settings.draw, accelerator, checkpoints / f"{key}.safetensors")
    if accelerator.is_main_process:
        unseen = records.read_tensors(layout.safety4m(seed) / "unseen_mask.safetensors", ["unseen_mask"])["unseen_mask"]
        save(model, unseen, folder, job.base)
        records.write_json(beside(folder), as_dict(job))
        records.write_table(folder / "losses.parquet", losses, records.LOSSES)
        shutil.rmtree(checkpoints, ignore_errors=True)
    accelerator.wait_for_everyone()


def fit(
    model: MultifurcationRewardModel, targets: Targets, settings: MRM, seed: int, accelerator: Accelerator, checkpoint: Path
) -> pd.DataFrame:
    """Run all steps, from the checkpoint on if there is one.

    Args:
        model: trained in place.
        targets: rows of the train split.
        settings: order, batch size, epochs, learning rate, schedule, checkpoints.
        seed: of the shuffles.
        accelerator: of this process.
        checkpoint: file of the checkpoint.

    Returns:
        The loss curve, as records.LOSSES.

    Raises:
        TrainingError: if a loss is not finite, at the next checkpoint or the end.
    """
    total = steps(len(targets), settings.batch_size, settings.epochs)
    device = accelerator.device
    parameters = model.to(device).trainable()
    optimizer: Any = torch.optim.AdamW(
        list(parameters.values()), lr=settings.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0
    )
    losses = torch.zeros(total, device=device)
    first = restore(checkpoint, parameters, optimizer, losses) if checkpoint.exists() else 0
    prepared, optimizer = accelerator.prepare(model, optimizer)
    bar = tqdm(total=total, initial=first, desc="mrm", unit="step", mininterval=1, disable=not accelerator.is_main_process)
    for step, indices in enumerate(schedule(len(targets), settings.batch_size, settings.epochs, seed)):
        if step < first:
            continue
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, total)
        batch, weight = _share(targets, indices, accelerator.process_index, accelerator.num_processes)
        batch = batch.to(device)
        loss = weight * squared_error(prepared(batch), batch, sum(targets.size(int(index)) for index in indices))
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses[step] = loss.detach()
        bar.update()
        done = step + 1
        if done % settings.checkpoint_every == 0 and done < total:
            reduced = accelerator.reduce(losses, reduction="mean")
            _check_losses(reduced[:done])
            if accelerator.is_main_process:
                store(checkpoint, parameters, optimizer, reduced, done)
                bar.set_postfix(loss=f"{float(reduced[max(first, done - 100) : done].mean()):.3f}")
    bar.close()
    losses = accelerator.reduce(losses, reduction="mean").cpu()
    _check_losses(losses)
    return _curve(losses, settings)


def _check_losses(losses: Tensor) -> None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        step = int(bad[0])
        raise TrainingError(
            f"MRM training: the loss is {float(losses[step])} at step {step} of {len(losses)} so far; lower mrm.learning_rate, "
            "or use runtime.dtype float32"
        )


def learning_rate(settings: MRM, step: int, total: int) -> float:
    """Learning rate of a step, counted from 0."""
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / total))


def store(path: Path, parameters: dict[str, torch.nn.Parameter], optimizer: Any, losses: Tensor, done: int) -> None:
    """Write a checkpoint: trained parameters, AdamW's averages and the losses so far, as one safetensors file."""
    tensors = {"losses": losses}
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        tensors |= {f"parameter/{name}": parameter, f"average/{name}": state["exp_avg"], f"square/{name}": state["exp_avg_sq"]}
    with records.replacing(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, {"step": str(done)})


def restore(path: Path, parameters: dict[str, torch.nn.Parameter], optimizer: Any, losses: Tensor) -> int:
    """Read a checkpoint back into parameters, optimizer and losses, in place; returns the number of steps done.

    Raises:
        RecordError: if it cannot be read.
    """
    tensors = records.read_tensors(path)
    with safe_open(path, "pt") as stream:
        done = int(stream.metadata()["step"])
    losses.copy_(tensors["losses"])
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(done)),
                "exp_avg": tensors[f"average/{name}"].to(parameter),
                "exp_avg_sq": tensors[f"square/{name}"].to(parameter),
            }
    log.info("training goes on from step %d", done)
    return done


def save(model: MultifurcationRewardModel, unseen: Tensor, folder: Path, base: str) -> None:
    """Write ``adapter/``, ``merged/`` (LoRA merged in, no bias) and ``head.safetensors`` (the bias and the unseen tokens).

    Args:
        model: the trained model; its LoRA is merged, it cannot be trained further.
        unseen: bool[V].
        folder: of the variant.
        base: name of the model the adapter belongs to, for its config.
    """
    with records.replacing_folder(folder / "adapter") as temporary:
        model.adapted.save_pretrained(str(temporary))
        (temporary / "README.md").unlink(missing_ok=True)  # a template; the model card is one folder up
        settings = records.read_json(temporary / "adapter_config.json")
        settings["base_model_name_or_path"] = base
        settings["target_modules"] = sorted(settings["target_modules"])  # a set, stored in an order that varies
        records.write_json(temporary / "adapter_config.json", settings)
    with records.replacing_folder(folder / "merged") as temporary:
        model.adapted.merge_and_unload().save_pretrained(temporary)
    models.save_mrm_head(folder, model.bias, unseen)


def _share(targets: Targets, indices: np.ndarray, rank: int, world: int) -> tuple[Batch, float]:
    """This process's rows of a step and the weight of their loss: gradients are averaged over processes, errors summed."""
    mine = indices[rank::world]
    rows = [targets.row(int(index)) for index in (mine if len(mine) else indices[:1])]
    return collate(rows), float(world) if len(mine) else 0.0


def _curve(losses: Tensor, settings: MRM) -> pd.DataFrame:
    total = len(losses)
    window = -(-total // CURVE) if total else 1
    ends = [min(start + window, total) for start in range(0, total, window)]
    return pd.DataFrame(
        {
            "phase": "mrm",
            "step": ends,
            "loss": [float(part.double().mean()) for part in losses.split(window)],
            "learning_rate": [learning_rate(settings, end - 1, total) for end in ends],
        }
    )
