"""Stage models: tokenizer, policy, guard and DeepAlign policy; and the one way to load each of them, the MRM included.

torch is imported inside the functions, as the tokenizer's job needs none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError

from saffron import records
from saffron.config import ConfigError, Runtime, as_dict
from saffron.jobs import ModelJob, beside
from saffron.layout import Layout

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

HEAD = "head.safetensors"
#: Between the seed of a guard and that of the independent judge beside it in the sandbox.
JUDGE_SEED = 1000


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
    from transformers import AutoModelForCausalLM

    from saffron.models import device

    place, dtype = device_of(runtime), getattr(torch, runtime.dtype)
    free = device.free_bytes(place)
    with _readable(folder, "model"):
        check_fits(folder, dtype, free)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attn,
            local_files_only=True,
            device_map={"": place} if device_map == "auto" else None,
            output_loading_info=True,
        )
        model, found = loaded
        if found["missing_keys"]:  # transformers would go on with random weights
            raise ValueError(f"tensors {sorted(found['missing_keys'])[:3]} are missing")
    return model.to(place).eval().requires_grad_(False)


@contextlib.contextmanager
def _readable(folder: Path, what: str) -> Iterator[None]:
    """Turn what transformers says of a broken folder into one error with the remedy."""
    import torch

    try:
        yield
    except (ModelError, torch.OutOfMemoryError):
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        cause = next(iter(str(error).splitlines()), "")
        raise ModelError(
            f"{folder}: not a readable {what} ({type(error).__name__}: {cause}); delete the folder and run the stage models "
            "(of an MRM: mrm) again"
        ) from None


def skeleton(folder: Path) -> PreTrainedModel:
    """The model of a folder without its weights: every tensor has a shape and no memory.

    Raises:
        ValueError, KeyError, OSError: as transformers does, if ``config.json`` describes no causal language model it knows.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
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
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder, local_files_only=True)  # type: ignore[assignment]
    return tokenizer


def save_mrm_head(folder: str | Path, bias: Tensor, unseen_mask: Tensor) -> None:
    """Write ``head.safetensors``: the unembedding bias (float[V]) and which tokens were never a target (bool[V])."""
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

    A bias-free architecture drops the bias on loading without a word; here it becomes part of the unembedding layer.

    Returns:
        The model, whose logits are M(s) (Section 4.1), and BoolTensor[V], true for tokens that were never a target (Eq. 7).

    Raises:
        ModelError: if the folder lacks the model or its head, their sizes differ, or the device does not hold the model.
        RecordError: if the head cannot be read.
    """
    from torch import nn

    folder = Path(folder)
    if not (folder / HEAD).exists():
        raise ModelError(f"{folder}: no {HEAD} here; run the stage mrm")
    head = records.read_tensors(folder / HEAD, ("lm_head_bias", "unseen_mask"))
    model = load_lm(folder / "merged", runtime, attn, device_map)
    bias, unseen = head["lm_head_bias"], head["unseen_mask"].bool()
    layer = model.get_output_embeddings()
    if bias.shape != (layer.out_features,) or unseen.shape != bias.shape:
        raise ModelError(f"{folder}: {HEAD} is for {len(bias)} tokens, the model has {layer.out_features}; rerun the stage mrm")
    layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=False)
    return model, unseen.to(layer.weight.device)


# --------------------------------------------------------------------------------------------------- the stage's commands
def tokenizer(job: ModelJob, layout: Layout) -> None:
    """Write tokenizer and chat formats to ``layout.tokenizer``."""
    if job.models.origin == "hub":
        from saffron.models import hub

        return hub.tokenizer(job, layout)
    from saffron.models.sandbox import vocabulary

    settings = job.models.sandbox
    assert settings is not None  # checked by config.Models
    trained = vocabulary.train(records.read_table(layout.corpus, records.CORPUS), settings.vocab_size, settings.guard_question)
    with records.replacing_folder(layout.tokenizer) as folder:
        vocabulary.save(trained, settings.guard_question, folder)
    records.write_json(beside(layout.tokenizer), as_dict(job))


def policy(job: ModelJob, layout: Layout) -> None:
    """Write the policy to ``layout.model("policy", seed)``."""
    if job.models.origin == "hub":
        from saffron.models import hub

        return hub.policy(job, layout)
    from saffron.models.sandbox.policy import train_policy

    _train(train_policy, job, layout)


def guard(job: ModelJob, layout: Layout) -> None:
    """Write the guard, which is also the judge, to ``layout.model("guard", seed)``."""
    if job.models.origin == "hub":
        from saffron.models import hub

        return hub.guard(job, layout)
    from saffron.models.sandbox.guard import train_guard

    _train(train_guard, job, layout)


def judge(job: ModelJob, layout: Layout) -> None:
    """Write the independent judge, which no search reads, to ``layout.model("judge", seed)``: a guard of another seed.

    Raises:
        ConfigError: if the models come from the hub and ``models.hub.judge`` names none.
    """
    if job.models.origin == "hub":
        from saffron.models import hub

        return hub.judge(job, layout)
    from saffron.models.sandbox.guard import train_guard

    def train(*arguments: Any) -> Any:
        settings, corpus, vocabulary, formats, own = arguments
        return train_guard(settings, corpus, vocabulary, formats, own + JUDGE_SEED)

    _train(train, job, layout)


def deepalign(job: ModelJob, layout: Layout) -> None:
    """Write the DeepAlign policy of Section 5.6 to ``layout.model("deepalign", seed)``; it starts from the policy.

    Raises:
        ConfigError: outside the sandbox; the published DeepAlign policy has another tokenizer than the paper's policies.
    """
    if job.models.origin == "hub":
        raise ConfigError("search: policy deepalign exists only with models.from sandbox; remove the runs that use it")
    from saffron.models.sandbox.policy import train_deepalign

    assert job.runtime is not None and job.seed is not None
    runtime = job.runtime.model_copy(update={"device": "cpu", "dtype": "float32"})
    start: Any = load_lm(layout.model("policy", job.seed), runtime).requires_grad_(True)

    def tune(*arguments: Any) -> Any:
        settings, *rest = arguments
        return train_deepalign(settings, start, *rest)

    _train(tune, job, layout)


def _train(function: Any, job: ModelJob, layout: Layout) -> None:
    """Train a sandbox model on one thread count, so that a seed gives the same bytes, and store it with its losses."""
    import torch

    from saffron.chat import ChatFormats

    settings = job.models.sandbox
    assert settings is not None and job.runtime is not None and job.seed is not None  # made by jobs.model
    torch.set_num_threads(job.runtime.torch_threads)
    corpus = records.read_table(layout.corpus, records.CORPUS)
    vocabulary, formats = load_tokenizer(layout.tokenizer), ChatFormats.load(layout.tokenizer)
    model: LlamaForCausalLM
    model, losses = function(settings, corpus, vocabulary, formats, job.seed)
    with records.replacing_folder(layout.model(job.which, job.seed)) as folder:
        model.save_pretrained(folder)
        records.write_table(folder / "losses.parquet", losses, records.LOSSES)
    records.write_json(beside(layout.model(job.which, job.seed)), as_dict(job))
