"""The one way to load a model, the MRM included, and the tokenizer of all of them.

torch is imported inside the functions, as the tokenizer's job needs none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saffron import exhausted, records
from saffron.config import ConfigError, Runtime
from saffron.models import checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

HEAD = "head.safetensors"
OVERFLOW = "its weights are damaged, or overflow in this dtype: try runtime.dtype float32, then another checkpoint"


class ModelError(ValueError):
    """A model folder that is missing or incomplete; names the folder and the stage that makes it."""


def device_of(runtime: Runtime) -> torch.device:
    """Where models run; ``auto`` takes a GPU if there is one."""
    import torch

    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(runtime.device)


def require_device(runtime: Runtime) -> None:
    """Refuse ``runtime.device: cuda`` where torch finds no GPU, before any work is done on the CPU instead.

    Raises:
        ConfigError: with the cause as far as it is known, and the remedy.
    """
    import torch

    if runtime.device != "cuda" or torch.cuda.is_available():
        return
    cause = "finds none (does nvidia-smi list one, and is its driver new enough?)" if torch.version.cuda else "has no CUDA"
    raise ConfigError(
        f"runtime.device is cuda, but there is no GPU here: torch {torch.__version__} {cause} (README.md, On a GPU); "
        "run this where there is one, or set runtime.device to auto or cpu"
    )


def load_lm(
    folder: str | Path,
    runtime: Runtime,
    attn: Literal["sdpa", "eager"] = "sdpa",
    device_map: Literal["auto"] | None = None,
) -> PreTrainedModel:
    """A language model from a ``save_pretrained`` folder: frozen, in evaluation mode, on the runtime's device in its dtype.

    Args:
        folder: the model's.
        runtime: device and dtype.
        attn: attention of the model's own forward.
        device_map: ``auto`` lets accelerate put the weights straight on the device, past host memory.

    Raises:
        ModelError: if the folder holds no model, one that cannot be read, or one that the device's free memory does not hold.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder}: no model here; run the stage that makes it")
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedConfig

    from saffron.models import device

    place, dtype = device_of(runtime), getattr(torch, runtime.dtype)
    free = device.free_bytes(place)
    with _readable(folder, "model"):
        checkpoint.check_json(folder, checkpoint.MODEL_JSON)
        checkpoint.check_alone(folder)
        config = PreTrainedConfig.get_config_dict(folder)[0]
        checkpoint.check_config(config)
        parts = checkpoint.parts(folder / checkpoint.INDEX) if (folder / checkpoint.INDEX).exists() else []
        checkpoint.check_numbers(
            [whole] if (whole := folder / checkpoint.WEIGHTS).exists() else [folder / part for part in parts]
        )
        check_fits(folder, dtype, free)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attn,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,  # else a pickle would do where they are missing
            device_map={"": place} if device_map == "auto" else None,
            output_loading_info=True,
        )
        model, found = loaded
        if found["missing_keys"]:  # transformers would go on with random weights
            raise ValueError(f"tensors {sorted(found['missing_keys'])[:3]} are missing")
        checkpoint.check_keys(found["unexpected_keys"], (), ())  # which it would leave out
        checkpoint.check_class(config, model)
        embeddings, head = (part and part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings()))
        if model.config.tie_word_embeddings and head is not embeddings:  # which it does where both are stored and differ
            checkpoint.check_tied(embeddings, head)
    return model.to(place).eval().requires_grad_(False)


@contextlib.contextmanager
def _readable(folder: Path, what: str) -> Iterator[None]:
    """Turn what transformers says of a broken folder into one error with the remedy."""
    import torch

    try:
        yield
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what an odd value in a config ends in varies
        if exhausted.explained(error):
            raise
        cause = one_line(error)
        raise ModelError(
            f"{folder}: not a readable {what} ({type(error).__name__}: {cause}); delete the folder and run the stage models "
            "(of an MRM: mrm) again"
        ) from None


def one_line(error: Exception) -> str:
    """What an error of a library says, at most as much as is read."""
    return " ".join(str(error).split())[:300]


def skeleton(folder: Path) -> PreTrainedModel:
    """The model of a folder without its weights: every tensor has a shape and no memory.

    Raises:
        ValueError, KeyError, OSError: as transformers does, if ``config.json`` describes no causal language model it knows.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False, attn_implementation="sdpa")  # as load_lm
    model.tie_weights()
    return model.eval()


def check_fits(folder: Path, dtype: torch.dtype, free: int | None) -> None:
    """Refuse a model that one device does not hold, before its weights are read.

    It cannot be spread over several: the engine calls the parts of a layer one by one, past the hooks with which
    accelerate moves activations from device to device, and keeps keys, values and ancestry in one place.

    Args:
        folder: of the model.
        dtype: of its weights once loaded.
        free: bytes free on the device (None: not known, nothing is checked).

    Raises:
        ModelError: with both sizes and the remedy.
    """
    if free is None:
        return
    needed = dtype.itemsize * sum(parameter.numel() for parameter in skeleton(folder).parameters())
    if needed > free:
        raise ModelError(
            f"{folder}: the weights take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on the GPU; a model has to be on "
            "one GPU as a whole (the trie engine drives its layers directly): use a GPU with more memory, runtime.dtype "
            "bfloat16, or a smaller model in models.hub"
        )


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer in ``folder``; read once for all runs of a process, as it takes as long as a small search.

    Raises:
        ModelError: if there is none, or one that cannot be read.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.exists():
        raise ModelError(f"{folder}: no tokenizer here; run the stage models")
    return _read_tokenizer(Path(folder), path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_tokenizer(folder: Path, modified: int) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    with _readable(folder, "tokenizer"):
        checkpoint.check_json(folder, checkpoint.TOKENIZER_JSON)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return tokenizer  # type: ignore[no-any-return]


def save_mrm_head(folder: str | Path, bias: Tensor, unseen_mask: Tensor) -> None:
    """Write ``head.safetensors``: the lm_head bias (float[V]) and which tokens were never a target (bool[V])."""
    from safetensors.torch import save_file

    tensors = {"lm_head_bias": bias.detach().float().cpu().contiguous(), "unseen_mask": unseen_mask.cpu()}
    with records.replacing(Path(folder) / HEAD) as temporary:
        save_file(tensors, temporary)


def load_mrm(
    folder: str | Path,
    runtime: Runtime,
    attn: Literal["sdpa", "eager"] = "sdpa",
    device_map: Literal["auto"] | None = None,
) -> tuple[PreTrainedModel, Tensor]:
    """The multifurcation reward model of a training folder: ``merged/`` with its bias in place, and its unseen tokens.

    An architecture without this bias drops it silently on loading; here it becomes part of the lm_head layer.

    Returns:
        The model, whose logits are M(s) (Section 4.1), and BoolTensor[V], true for tokens that were never a target (Eq. 7).

    Raises:
        ModelError: if the folder lacks the model or its head, their sizes differ, or the device does not hold the model.
        RecordError: if the head cannot be read.
    """
    folder = Path(folder)
    if not (folder / HEAD).exists():
        raise ModelError(f"{folder}: no {HEAD} here; run the stage mrm")
    head = records.read_tensors(folder / HEAD, ("lm_head_bias", "unseen_mask"))
    model = load_lm(folder / "merged", runtime, attn, device_map)
    bias, unseen = head["lm_head_bias"], head["unseen_mask"].bool()
    tokens = model.get_output_embeddings().out_features
    if bias.shape != (tokens,) or unseen.shape != bias.shape:
        raise ModelError(f"{folder}: {HEAD} is for {len(bias)} tokens, the model has {tokens}; rerun the stage mrm")
    add_bias(model, bias)
    return model, unseen.to(model.device)


def add_bias(model: PreTrainedModel, bias: Tensor) -> None:
    """Make a bias [V] part of the model's lm_head, in place; in the dtype of its weight."""
    from torch import nn

    layer = model.get_output_embeddings()
    layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=False)


def require_finite(values: Iterable[Any], what: str, model: object, *, each: str = "number") -> None:
    """Refuse rewards that are no numbers, before any of them is stored.

    Args:
        values: rewards.
        what: they are of, for the message.
        model: which gave them.
        each: what a value belongs to within that; their number is said with it where there are several.

    Raises:
        ModelError: naming the first, what it belongs to and the model.
    """
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        place = f" at {each} {bad[0]}" if len(array) > 1 else ""
        raise ModelError(f"{model}: the reward of {what}{place} is {array[bad[0]]}; {OVERFLOW}")
