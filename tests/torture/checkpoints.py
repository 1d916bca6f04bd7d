"""A grid of tiny random checkpoints: what the engine reads is what transformers' own model says, or the checkpoint is refused.

Each try draws one: family, sizes, biases, rotary embedding, window, dtype, files. Then it is left as it is, spoilt in one of the
ways that are met with, given an odd value in its config, hooked in memory, or a LoRA adapter is put on it. It has to pass two
doors, the look of the models stage and the loading of every later stage. A refusal is one line that names what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig

from saffron import models
from saffron.config import HubFile, Runtime
from saffron.engine.forward import TrieError
from saffron.engine.trie import ROOT, TokenTrie
from saffron.layout import Layout
from saffron.models import hub, truncated
from saffron.mrm import release
from saffron.mrm.pretrained import MRM
from saffron.records import RecordError
from torture.parts import Fault, Part

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
REFUSALS = (hub.SourceError, models.ModelError, TrieError, release.ReleaseError, RecordError)
KEY = "models.hub.policy"
NEW_TOKENS, LONGEST = 5, 7
#: Share of the largest log-probability by which two ways of computing it may differ.
TOLERANCE = {"float64": 1e-7, "float32": 2e-3}
#: Rotary embeddings whose angles do not depend on the length of the sequence.
ROPES: tuple[dict[str, Any], ...] = (
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.7, "beta_fast": 16.0, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.9},
)
ODD = (None, 0, -1, 1, 3, 7, 1.5, 1e300, "", "no", "8", True, False, [], [1], ["x"], {}, {"a": 1}, {"rope_type": "no"}, "null")


@dataclass
class Checkpoint:
    """What was drawn.

    Attributes:
        folder: where it lies.
        truth: what it has to be read as, in memory; None: what transformers loads of the folder.
        dtype: in which it is read.
        named: what a refusal has to name; None where it has to be read.
        either: it may be read as well.
        later: no header tells, so that it may pass the models stage.
        change: what is done to the model once it is loaded, and to the truth.
        what: what was done, in words.
    """

    folder: Path
    truth: Any
    dtype: str
    named: str | None = None
    either: bool = False
    later: bool = False
    change: Callable[[Any], None] | None = None
    what: str = ""


# ------------------------------------------------------------------------------------------------------------- drawing
def fields(rng: random.Random, family: str) -> dict[str, Any]:
    """Fields of a config that is well formed and that the engine drives."""
    kv, groups, dim = rng.choice([1, 1, 2, 3]), rng.choice([1, 2, 3]), rng.choice([2, 4, 6])
    heads = kv * groups
    rope = dict(rng.choice(ROPES), rope_theta=rng.choice([1e4, 5e5]))
    if rope["rope_type"] in ("llama3", "yarn"):
        rope["original_max_position_embeddings"] = 8
    found = {
        "vocab_size": rng.choice([17, 40, 64]),
        "hidden_size": rng.choice([heads * dim, heads * 5, 12 * heads]),
        "intermediate_size": rng.choice([5, 32]),
        "num_hidden_layers": rng.randint(1, 3),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": dim,
        "hidden_act": rng.choice(["silu", "silu", "gelu", "relu"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-2]),
        "tie_word_embeddings": rng.random() < 0.5,
        "rope_parameters": rope,
        "max_position_embeddings": 32,
        "initializer_range": 0.7,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    if family in ("llama", "qwen3"):
        found["attention_bias"] = rng.random() < 0.5
    if family == "llama":
        found["mlp_bias"] = rng.random() < 0.5
    if family == "mistral":
        found["sliding_window"] = rng.choice([None, None, 4, 64])
    if family in ("qwen2", "qwen3") and rng.random() < 0.5:
        found |= {"use_sliding_window": True, "sliding_window": rng.choice([4, 64]), "max_window_layers": rng.randint(0, 3)}
    return found


def build(family: str, kind: str, settings: dict[str, Any], seed: int, dtype: str) -> Any:
    """A random model in which every bias and every norm matters, of numbers that ``dtype`` holds, in float64."""
    name = FAMILIES.get(family, family)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{name}{kind}")(getattr(transformers, f"{name}Config")(**settings))
        for label, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.data = torch.randn_like(parameter) if label.endswith("bias") else 0.5 + torch.rand_like(parameter)
    for parameter in model.parameters():  # not the tables of the rotary embedding, which stay in float32 whatever the dtype
        parameter.data = parameter.data.to(getattr(torch, dtype)).double()
    return model.eval().requires_grad_(False)


def draw(rng: random.Random, folder: Path, family: str | None = None, **changes: Any) -> tuple[Checkpoint, dict[str, Any], str]:
    """A sound checkpoint in a folder, its config's fields and family."""
    family = family or rng.choice(list(FAMILIES))
    settings = fields(rng, family) | changes
    stored = rng.choice(["float32", "float32", "bfloat16", "float64"])
    model = build(family, "ForCausalLM", settings, rng.randrange(1 << 30), stored)
    write(model, folder, stored, sharded=rng.random() < 0.25)
    checkpoint = Checkpoint(folder, model, rng.choice(["float64", "float64", "float32"]))
    window = settings.get("sliding_window")
    if window is not None and window < LONGEST + NEW_TOKENS + 3:
        checkpoint.named, checkpoint.either, checkpoint.later = "sliding window of", True, True
    return checkpoint, settings, family


def write(model: Any, folder: Path, dtype: str, *, sharded: bool = False) -> None:
    """Store a model as ``save_pretrained`` does, in ``dtype``."""
    tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in model.state_dict().items()}
    tied = model.config.tie_word_embeddings and "lm_head.weight" in tensors
    if tied:
        del tensors["lm_head.weight"]
    model.config.dtype = dtype
    model.save_pretrained(folder, state_dict=tensors, max_shard_size="2KB" if sharded else "1GB")


# ------------------------------------------------------------------------------------------------------------- spoiling
Spoil = Callable[[Path, random.Random], None]


def describe(**values: Any) -> Spoil:
    """Fields of ``config.json``; None takes one away."""

    def spoil(folder: Path, rng: random.Random) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text()) | values
        path.write_text(json.dumps({name: value for name, value in config.items() if name not in values or value is not None}))

    return spoil


def tensors(change: Callable[[dict[str, Tensor], random.Random], object]) -> Spoil:
    """Change what is in one of the weights' files."""

    def spoil(folder: Path, rng: random.Random) -> None:
        path = sorted(folder.glob("model*.safetensors"))[0]
        found = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(found, rng)
        path.unlink()
        save_file(found, path, {"format": "pt"})

    return spoil


def add(name: str, *shape: int) -> Spoil:
    return tensors(lambda found, rng: found.update({name: torch.full(shape, 3.0)}))


def _missing(found: dict[str, Tensor], rng: random.Random) -> None:
    del found[rng.choice(sorted(found))]


def _reshaped(found: dict[str, Tensor], rng: random.Random) -> None:
    name = rng.choice(sorted(found))
    found[name] = found[name].repeat(2, *(1 for _ in found[name].shape[1:]))


def _whole_numbers(found: dict[str, Tensor], rng: random.Random) -> None:
    name = rng.choice(sorted(found))
    found[name] = (found[name] * 50).to(torch.int8)


def _cut(folder: Path, rng: random.Random) -> None:
    path = sorted(folder.glob("model*.safetensors"))[0]
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def _pickled(folder: Path, rng: random.Random) -> None:
    for path in folder.glob("model*.safetensors"):
        torch.save(load_file(path), folder / "pytorch_model.bin")
        path.unlink()


def _index(name: str) -> Spoil:
    def spoil(folder: Path, rng: random.Random) -> None:
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": name}})
        )

    return spoil


def _adapter_beside(folder: Path, rng: random.Random) -> None:
    LoraConfig(base_model_name_or_path=str(folder)).save_pretrained(folder)


def _another_head(folder: Path, rng: random.Random) -> None:
    def change(found: dict[str, Tensor], rng: random.Random) -> None:
        found["lm_head.weight"] = found["model.embed_tokens.weight"] + 1

    tensors(change)(folder, rng)


def _quantised(**values: Any) -> Spoil:
    return describe(quantization_config=values)


#: A family or None, fields of the config, what is done to the files, what the refusal names.
SPOILS: dict[str, tuple[str | None, dict[str, Any], Spoil, str]] = {
    "no architecture": (None, {}, describe(architectures=None), "architectures"),
    "an empty list of architectures": (None, {}, describe(architectures=[]), "architectures"),
    "another family's architecture": ("llama", {}, describe(architectures=["MistralForCausalLM"]), "architectures"),
    "another family's type": ("llama", {}, describe(model_type="mistral"), "architectures|no place"),
    "a type of its own": (None, {}, describe(model_type="mine"), "config.json|mine"),
    "code of its own": (None, {}, describe(auto_map={"AutoModelForCausalLM": "code.Model"}), "auto_map"),
    "bitsandbytes": (None, {}, _quantised(quant_method="bitsandbytes", load_in_4bit=True), "bitsandbytes"),
    "gptq": (None, {}, _quantised(quant_method="gptq", bits=4), "gptq"),
    "a quantisation without a name": (None, {}, _quantised(load_in_8bit=True), "quantization_config"),
    "compressed tensors": (None, {}, describe(compression_config={"format": "int-quantized"}), "compression_config"),
    "whole numbers for weights": (None, {}, tensors(_whole_numbers), "int|I8"),
    "an lm_head bias": (None, {}, add("lm_head.bias", 3), r"lm_head\.bias"),
    "a classifier's head": (None, {}, add("score.weight", 2, 4), "score.*classifier"),
    "a bias without a place": ("mistral", {}, add("model.layers.0.mlp.up_proj.bias", 4), "has no bias"),
    "an adapter's tensors": (None, {}, add("model.layers.0.self_attn.q_proj.lora_A.weight", 2, 4), "adapter"),
    "a tensor of no model": (None, {}, add("mtp.layers.0.weight", 2, 2), r"mtp\.layers"),
    "a missing tensor": (None, {"tie_word_embeddings": False}, tensors(_missing), "lack|missing"),
    "a tensor of another shape": (None, {}, tensors(_reshaped), "shape|size"),
    "a weight file cut short": (None, {}, _cut, "fetch|delete"),
    "pickled weights": (None, {}, _pickled, "safetensors"),
    "an index of a file elsewhere": (None, {}, _index("../model.safetensors"), "safetensors"),
    "an index of a pickle": (None, {}, _index("pytorch_model.bin"), "safetensors"),
    "an index of a file that is not there": (None, {}, _index("gone.safetensors"), "gone|missing|lack"),
    "an adapter beside it": (None, {}, _adapter_beside, "adapter"),
    "an lm_head that is tied and stored": (None, {"tie_word_embeddings": True}, _another_head, "tie_word_embeddings"),
    "fewer layers than weights": (None, {"num_hidden_layers": 2}, describe(num_hidden_layers=1, layer_types=None), "layers"),
    "more layers than weights": (None, {"num_hidden_layers": 1}, describe(num_hidden_layers=2, layer_types=None), "layers"),
    "no layers": (None, {}, describe(num_hidden_layers=0, layer_types=None), "layer"),
    "more logits than rows": (None, {"vocab_size": 40}, describe(vocab_size=41), "shape|size|embed"),
    "a rope that depends on the length": (
        None,
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
        describe(),
        "dynamic",
    ),
    "a rope in two parts": (
        None,
        {
            "head_dim": 4,
            "rope_parameters": {
                "rope_type": "longrope",
                "short_factor": [1.0, 1.0],
                "long_factor": [2.0, 3.0],
                "original_max_position_embeddings": 8,
                "factor": 4.0,
                "rope_theta": 1e4,
            },
        },
        describe(),
        "longrope",
    ),
    "a rope of half a head": (
        None,
        {"head_dim": 4},
        describe(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        "rotary embedding",
    ),
    "not causal": (None, {}, describe(is_causal=False), "is_causal"),
    "heads that cannot be halved": ("llama", {"head_dim": 3}, describe(), "head"),
    "query heads that no group holds": (
        "llama",
        {"num_attention_heads": 4, "num_key_value_heads": 3, "head_dim": 4, "hidden_size": 12},
        describe(),
        "num_key_value_heads",
    ),
}

#: Written in another way, and the same model, or one that the config's fields make another: read as transformers reads it.
WAYS: dict[str, tuple[str | None, dict[str, Any], Spoil]] = {
    "rope as it was written once": (
        None,
        {},
        describe(rope_parameters=None, rope_scaling={"type": "linear", "factor": 2.0}, rope_theta=5e5),
    ),
    "penalties of its own": (
        None,
        {},
        lambda folder, rng: (folder / "generation_config.json").write_text(
            json.dumps({"repetition_penalty": 1.7, "do_sample": True, "top_k": 3, "suppress_tokens": [2, 3]})
        ),
    ),
    "layer types that Mistral does not read": (
        "mistral",
        {"sliding_window": 4, "num_hidden_layers": 2},
        describe(layer_types=["full_attention"] * 2),
    ),
    "a window that Llama does not read": ("llama", {}, describe(sliding_window=4)),
    "layer types by hand": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "num_hidden_layers": 2},
        describe(layer_types=["full_attention", "sliding_attention"]),
    ),
    "a window that is switched off": (
        "qwen3",
        {"num_hidden_layers": 2},
        describe(use_sliding_window=False, sliding_window=4, layer_types=["full_attention"] * 2),
    ),
    "no number of key heads": ("llama", {"num_attention_heads": 2, "num_key_value_heads": 2}, describe(num_key_value_heads=None)),
    "scales that other families read": (
        None,
        {},
        describe(final_logit_softcapping=2.0, logit_scale=3.0, embedding_multiplier=2.0, attn_logit_softcapping=1.0),
    ),
    "half a head, of which the default rope knows nothing": (
        "llama",
        {"head_dim": 4},
        describe(partial_rotary_factor=0.5, rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
    ),
    "another attention": (None, {}, describe(attn_implementation="flash_attention_2", _attn_implementation="flash_attention_2")),
    "stored in half precision": (None, {}, describe(torch_dtype="float16", dtype=None)),
    "what old checkpoints hold": (None, {}, add("model.layers.0.self_attn.rotary_emb.inv_freq", 2)),
}


def spoilt(rng: random.Random, folder: Path) -> Checkpoint:
    """A checkpoint that is not what it has to be."""
    name = rng.choice(list(SPOILS))
    family, changes, spoil, named = SPOILS[name]
    checkpoint, _, _ = draw(rng, folder, family, **changes)
    spoil(folder, rng)
    return replace(checkpoint, truth=None, named=named, either=False, later=False, what=name)


def written(rng: random.Random, folder: Path) -> Checkpoint:
    """A checkpoint that is written in another way."""
    name = rng.choice(list(WAYS))
    family, changes, spoil = WAYS[name]
    checkpoint, _, _ = draw(rng, folder, family, **changes)
    spoil(folder, rng)
    return replace(checkpoint, truth=None, named="sliding window of|ministral", either=True, later=True, what=name)


def another_kind(rng: random.Random, folder: Path) -> Checkpoint:
    """A classifier, a body alone, another family."""
    family = rng.choice(list(FAMILIES))
    kind = rng.choice(["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "Model", "other"])
    settings = fields(rng, family)
    if kind != "other":
        model, named = build(family, kind, settings, rng.randrange(1 << 30), "float32"), f"{FAMILIES[family]}{kind}"
    else:
        family, named, more = rng.choice(OTHERS)
        model = build(family, "ForCausalLM", settings | more, rng.randrange(1 << 30), "float32")
    model.float().save_pretrained(folder)
    if kind != "other" and rng.random() < 0.3:  # under a language model's name
        describe(architectures=[f"{FAMILIES[family]}ForCausalLM"])(folder, rng)
        named = "lack|no place|missing|classifier"
    return Checkpoint(folder, None, "float64", named)


#: Other families: class, what the refusal names, fields of the config.
OTHERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GPT2", "gpt2", {"n_embd": 12, "n_head": 2, "n_layer": 1, "bos_token_id": 0, "eos_token_id": 1}),
    ("Gemma2", "gemma2", {}),
    ("Phi3", "phi3", {"pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    ("Olmo2", "olmo2", {}),
    ("Mixtral", "mixtral", {"num_local_experts": 2}),
    ("Qwen3Moe", "qwen3_moe", {"num_experts": 2, "moe_intermediate_size": 4, "num_experts_per_tok": 1}),
)


def fuzzed(rng: random.Random, folder: Path) -> Checkpoint:
    """A config with one odd value."""
    checkpoint, _, _ = draw(rng, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if rng.random() < 0.25 and isinstance(config.get("rope_parameters"), dict):
        config["rope_parameters"][rng.choice([*config["rope_parameters"], "factor"])] = rng.choice(ODD)
    else:
        config[rng.choice(sorted(config))] = rng.choice(ODD)
    path.write_text(json.dumps(config))
    return replace(checkpoint, truth=None, named="", either=True, later=True)


# ----------------------------------------------------------------------------------------------------------- in memory
class Halved(nn.Module):
    """A parametrisation."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def scaled(output: Any) -> Any:
    """What a hook makes of an output."""
    if isinstance(output, Tensor):
        return output * 1.25 if output.is_floating_point() else output
    if isinstance(output, tuple):
        return (scaled(output[0]), *output[1:])
    return output


def hooked(rng: random.Random, folder: Path) -> Checkpoint:
    """A model that somebody changed in memory."""
    checkpoint, _, _ = draw(rng, folder)
    assert checkpoint.truth is not None
    names = [name for name, _ in checkpoint.truth.named_modules()]
    name, way = rng.choice(names), rng.choice(["hook", "pre-hook", "forward", "class", "parametrisation", "weights"])

    def change(model: Any) -> None:
        module = model.get_submodule(name)
        if way == "hook":
            module.register_forward_hook(lambda module, given, output: scaled(output))
        elif way == "pre-hook":
            module.register_forward_pre_hook(lambda module, given: tuple(scaled(x) for x in given) or None)
        elif way == "forward":
            plain = module.forward
            module.forward = lambda *given, **named: scaled(plain(*given, **named))
        elif way == "class":
            kind = type(module)
            module.__class__ = type(
                kind.__name__, (kind,), {"forward": lambda self, *a, **k: scaled(kind.forward(self, *a, **k))}
            )
        elif way == "parametrisation" and isinstance(getattr(module, "weight", None), nn.Parameter):
            nn.utils.parametrize.register_parametrization(module, "weight", Halved())
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data * 1.25

    return replace(checkpoint, named="", either=True, later=True, change=change, what=f"{way} of {name}")


# ---------------------------------------------------------------------------------------------------------- comparing
def log_probabilities(logits: Tensor) -> Tensor:
    return logits.double().log_softmax(-1)


def require_same(ours: Tensor, theirs: Tensor, dtype: str, what: str) -> None:
    """Two arrays of logits say the same."""
    ours, theirs = log_probabilities(ours), log_probabilities(theirs)
    if not bool(torch.isfinite(theirs).all()):
        return  # rewards that are no numbers are refused where they are read
    gap, scale = float((ours - theirs).abs().nan_to_num(nan=torch.inf).max()), 1 + float(theirs.abs().max())
    if gap > TOLERANCE[dtype] * scale:
        raise Fault(f"{what}: log-probabilities differ by {gap:.3g} of {scale:.3g}")


def generated(truth: Any, prompt: list[int]) -> list[int]:
    """Greedy tokens of ``generate``, which may end before NEW_TOKENS."""
    truth.generation_config = GenerationConfig()
    plain = GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0)
    ids = torch.tensor([prompt])
    found: list[int] = truth.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plain)[
        0, len(prompt) :
    ].tolist()
    return found


@torch.no_grad()
def compare(model: Any, truth: Any, dtype: str, rng: random.Random, what: str) -> None:
    """Greedy continuations, their log-probabilities, and a chain that is read and dropped."""
    vocabulary = model.config.vocab_size
    prompts = [[rng.randrange(vocabulary) for _ in range(rng.randint(1, LONGEST))] for _ in range(2)]
    layout = rng.choice(["packed", "rows"])
    fixed = layout == "packed" and rng.random() < 0.5
    trie = TokenTrie(model, prompts, layout=layout, fixed_shapes=fixed, room=rng.choice([0, 3]))
    written = [generated(truth, prompt) for prompt in prompts]
    steps = min(map(len, written))
    own = [
        truth(torch.tensor([[*prompt, *new]]), use_cache=False).logits[0] for prompt, new in zip(prompts, written, strict=True)
    ]
    logits, nodes = trie.root_logits, torch.full((2, 1), ROOT)
    for step in range(steps):
        for row, prompt in enumerate(prompts):
            require_same(logits[row], own[row][len(prompt) - 1 + step], dtype, f"{what}: token {step}")
            if dtype == "float64" and int(logits[row].argmax()) != written[row][step]:
                raise Fault(f"{what}: token {step} is {int(logits[row].argmax())}, not {written[row][step]} as generate's")
        extension = trie.extend(nodes, torch.tensor([[new[step]] for new in written]))
        nodes, logits = extension.nodes, extension.logits[:, 0]
    if layout == "packed":
        chain = [rng.randrange(vocabulary) for _ in range(3)]
        read = TokenTrie(model, prompts).branch(torch.full((2, 1), ROOT), torch.tensor([[chain]] * 2)).logits[:, 0]
        for row, prompt in enumerate(prompts):
            require_same(read[row], truth(torch.tensor([[*prompt, *chain]])).logits[0, -1], dtype, f"{what}: a chain")


@torch.no_grad()
def compare_truncated(model: Any, truth: Any, dtype: str) -> None:
    """A guard of the first layer says what the model says after it."""
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    hidden = truth(ids, output_hidden_states=True, use_cache=False).hidden_states[1]
    guard = truncated.truncate(model, 1).eval()
    require_same(guard(ids).logits, truth.lm_head(truth.model.norm(hidden)), dtype, "a guard of the first layer")


# ------------------------------------------------------------------------------------------------------------ two doors
def door(what: str, enter: Callable[[], Any], named: str | None, where: str) -> tuple[Any, bool]:
    """What comes through, and whether the door was shut by name."""
    try:
        return enter(), False
    except TrieError as error:  # of a model in memory, which has no file
        said, where = str(error), ""
    except REFUSALS as error:
        said = str(error)
    except Fault:
        raise
    except Exception as error:
        raise Fault(f"{what}: {type(error).__name__}: {error}") from error
    if named is None:
        raise Fault(f"{what}: refused, though nothing is wrong: {said}")
    if "\n" in said or not re.search(named, said) or where not in said:
        raise Fault(f"{what}: does not name {named} and {where} in one line: {said!r}")
    return None, True


def loaded_truth(folder: Path) -> Any:
    """What transformers itself makes of a folder; None if it makes nothing that can be run."""
    try:
        truth = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, local_files_only=True)
        truth.eval()(torch.tensor([[1, 2, 3]]), use_cache=False)
    except Exception:  # whatever it is, nobody can read this one
        return None
    return truth


def try_checkpoint(checkpoint: Checkpoint, rng: random.Random) -> bool:
    """Send a checkpoint through both doors; whether it was refused."""
    folder, dtype, named = checkpoint.folder, checkpoint.dtype, checkpoint.named
    layout = Layout("mine", folder.parent)
    _, shut = door("models stage", lambda: hub.whole(HubFile(id="a/b", path=str(folder)), KEY, layout), named, KEY)
    if named and not (shut or checkpoint.later):
        raise Fault(f"{checkpoint.what}: passes the models stage")

    def read() -> bool:
        model: Any = models.load_lm(folder, Runtime.model_validate({"device": "cpu", "dtype": dtype}))
        truth = checkpoint.truth if checkpoint.truth is not None else loaded_truth(folder)
        if checkpoint.change is not None:
            checkpoint.change(model)
            checkpoint.change(truth)
        TokenTrie(model, [[1, 2, 3]])
        if truth is None:
            raise Fault("reads what transformers does not")
        compare(model, truth, dtype, rng, checkpoint.what)
        if model.config.num_hidden_layers > 1 and checkpoint.change is None and not checkpoint.either:
            compare_truncated(model, truth, dtype)
        return True

    found, refused = door("loading", read, named, folder.name)
    if found and named is not None and not checkpoint.either:
        raise Fault(f"is read, though {named} is wrong")
    return shut or refused


# ------------------------------------------------------------------------------------------------------------- adapters
ADAPTERS: tuple[dict[str, Any], ...] = (
    *({}, {}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 32}}, {"target_modules": ["gate_proj", "down_proj", "o_proj"]}),
    *(
        {"rank_pattern": {"v_proj": 3}},
        {"use_dora": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
    ),
    *({"target_modules": "all-linear"}, {"target_modules": r".*\.q_proj"}, {"layers_to_transform": [0]}, {"lora_bias": True}),
    *(
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"trainable_token_indices": [1, 2]},
    ),
    *({"init_lora_weights": "pissa"}, {"init_lora_weights": "gaussian"}, {"exclude_modules": ["k_proj"]}),
)


def try_adapter(rng: random.Random, folder: Path) -> bool:
    """An adapter as peft stores it on a base, in the release's layout: merged as peft applies it, or refused."""
    base, settings, _ = draw(rng, folder / "base", num_hidden_layers=2)
    changes = rng.choice(ADAPTERS)
    given = {
        "r": rng.choice([1, 4]),
        "lora_alpha": rng.choice([1, 16]),
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    source = folder / "released"
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(rng.randrange(1 << 30))
        adapted = get_peft_model(base.truth.float(), LoraConfig(**{"task_type": "CAUSAL_LM", **given, **changes}))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or parameter.requires_grad:
                parameter.data = torch.randn(parameter.shape) / 3
        adapted.save_pretrained(source)
        bias = torch.randn(settings["vocab_size"])
    torch.save(bias, source / release.BIAS)
    torch.save(torch.zeros(settings["vocab_size"], dtype=torch.bool), source / release.MASK)
    spoilt_field = rng.random() < 0.3
    if spoilt_field:
        path = source / release.ADAPTER_CONFIG
        described = json.loads(path.read_text())
        name = rng.choice(sorted(described))
        if rng.random() < 0.3:
            del described[name]
        else:
            described[name] = rng.choice(ODD)
        path.write_text(json.dumps(described))
    must = None if not spoilt_field and set(changes) <= {"use_rslora", "alpha_pattern"} else ""

    def read() -> bool:
        with quiet():
            ours = MRM.from_pretrained(source, base=base.folder, device="cpu", dtype="float64").model
            try:
                plain = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float64)
                theirs = PeftModel.from_pretrained(plain, source).eval()
            except Exception as error:
                raise Fault(f"reads an adapter that peft does not ({error})") from error
        ids = torch.tensor([[3, 1, 4, 1, 5]])
        with torch.no_grad():
            require_same(ours(ids).logits, theirs(ids).logits + bias, "float32", "an adapter")
        return True

    _, refused = door("adapter", read, must, "released")
    return refused


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What transformers and peft say of odd checkpoints is not of interest."""
    import warnings

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.enable_progress_bar()
        transformers.logging.set_verbosity(before)


# ------------------------------------------------------------------------------------------------------------ the part
DRAWN: dict[str, Callable[[random.Random, Path], Checkpoint]] = {
    "plain": lambda rng, folder: draw(rng, folder)[0],
    "spoilt": spoilt,
    "written in another way": written,
    "another kind": another_kind,
    "odd config": fuzzed,
    "changed in memory": hooked,
}
KINDS = (*("plain",) * 6, *("spoilt",) * 5, *("written in another way",) * 2, "another kind", *("odd config",) * 4)
KINDS += (*("changed in memory",) * 3, *("adapter",) * 4)


def attempt(scratch: Path) -> Callable[[int], str]:
    """Each try draws, writes and reads one checkpoint."""

    def once(seed: int) -> str:
        rng, folder = random.Random(seed), scratch / f"models{seed}"
        kind = rng.choice(KINDS)
        shutil.rmtree(folder, ignore_errors=True)
        with quiet():
            one = None if kind == "adapter" else DRAWN[kind](rng, folder / "policy")
            refused = try_adapter(rng, folder) if one is None else try_checkpoint(one, rng)
        shutil.rmtree(folder)
        return f"{kind}: {'refused by name' if refused else 'exact'}"

    return once


PART = Part("models", 3000, attempt)
