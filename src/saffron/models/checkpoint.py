"""What a checkpoint must be, said and checked before any work: from its ``config.json`` and the headers of its weights.

A checkpoint is a causal language model with plain weights, every tensor of which has a place in the model that it names.
transformers is more generous: it reads a classifier's body as a language model, leaves out what it has no place for, and
fills in what is missing. Each of these runs to the end with numbers that mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

CAUSAL = "ForCausalLM"
#: Tensors that old checkpoints hold though no model has a place for them: what the config says anyway.
DERIVED = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")

#: Fields of a config that say how its weights are quantised.
QUANTISED = ("quantization_config", "compression_config")
#: How safetensors names the types of numbers that weights may have.
FLOATS = ("F64", "F32", "F16", "BF16")
#: An adapter, which transformers would load in place of the model that it lies beside.
ADAPTER_CONFIG = "adapter_config.json"

#: The weights in one file, or which file each tensor of sharded ones is in.
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
#: What is read of a model beside its weights, and of a tokenizer: each file one JSON object.
MODEL_JSON = ("config.json", "generation_config.json")
TOKENIZER_JSON = ("config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")


def check_json(folder: Path, patterns: Iterable[str]) -> None:
    """Refuse a folder in which a file is no JSON object, before transformers takes it for one.

    Args:
        folder: of a checkpoint; a file may be missing.
        patterns: of its files' names.

    Raises:
        ValueError: naming the file and the remedy.
    """
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        try:
            found = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError) as error:  # not JSON, or not even text
            raise ValueError(f"{path.name} is not JSON ({error}); fetch it again") from None
        if not isinstance(found, dict):
            raise ValueError(f"{path.name} holds a {type(found).__name__}, not a JSON object; fetch it again")


def parts(index: Path) -> list[str]:
    """Names of the files that an index of sharded weights names, which have to be safetensors files beside it.

    Raises:
        ValueError: naming the index and what it names instead.
    """
    try:
        named = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index} is not an index of weights; fetch it again") from None
    for name in named:
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
            raise ValueError(f"{index} names {name!r}: only safetensors files beside it are read; take another checkpoint")
    return sorted(named)


def check_config(config: Any) -> None:
    """Refuse a ``config.json`` that describes another kind of model than can be read here.

    Args:
        config: its content.

    Raises:
        ValueError: naming the field and the remedy.
    """
    named = config.get("architectures")
    if not isinstance(named, list) or not named:
        raise ValueError(
            "config.json has no architectures, so what the weights are is not known; if they are a causal language model, add "
            'its class: "architectures": ["LlamaForCausalLM"]'
        )
    for name in named:
        if not str(name).endswith(CAUSAL):
            raise ValueError(
                f"architectures is {name}: no causal language model, so it has no logits of next tokens to read; take a "
                f"checkpoint whose architecture ends in {CAUSAL}"
            )
    for field in QUANTISED:
        if how := config.get(field):
            method = how.get("quant_method", "unknown") if isinstance(how, Mapping) else "unknown"
            raise ValueError(
                f"{field} says that the weights are quantised ({method}), which is not read here; take the checkpoint that was "
                "quantised, or store it plain: model.dequantize().save_pretrained(folder)"
            )
    if config.get("auto_map"):
        raise ValueError(
            "auto_map says that the model needs code of its own, and no code out of a checkpoint is ever run; take a checkpoint "
            "of a class that transformers has"
        )


def check_alone(folder: Path) -> None:
    """Refuse a folder with an adapter in it: which model is meant, with it or without it, is not said.

    Raises:
        ValueError: naming the adapter's file and the remedy.
    """
    if (folder / ADAPTER_CONFIG).exists():
        raise ValueError(
            f"{ADAPTER_CONFIG} lies beside the weights, and an adapter is not applied here: merge it (peft's merge_and_unload()) "
            "and take the folder that is saved then, or take the adapter away"
        )


def check_class(config: Mapping[str, Any], model: Any) -> None:
    """Refuse a checkpoint whose architecture is another class than the one that its ``model_type`` is loaded as.

    Raises:
        ValueError: naming both.
    """
    named, loaded = config["architectures"][0], type(model).__name__
    if named.lower() != loaded.lower():
        raise ValueError(
            f"architectures is {named}, but model_type {config.get('model_type')} is loaded as {loaded}; correct one"
        )


def check_keys(found: Collection[str], expected: Iterable[str], tied: Iterable[str]) -> None:
    """Refuse tensors that the model has no place for, as transformers would leave them out without a word.

    Args:
        found: names in the weights.
        expected: names that the model has, without tied ones.
        tied: names that stand for a tensor of another name.

    Raises:
        ValueError: naming the first such tensor, and what it means.
    """
    known = {*expected, *tied}
    strange = sorted(name for name in found if name not in known and not name.endswith(DERIVED))
    if not strange:
        return
    first = strange[0]
    if "lm_head.bias" in strange:
        first, why = "lm_head.bias", "this class of model has no lm_head bias, so that its logits would be others"
    elif first.startswith(("score.", "classifier.")):
        why = "it is the head of a classifier: take the causal language model"
    elif ".lora_" in first or first.startswith("base_model."):
        why = "it is an adapter's: merge it first (peft's merge_and_unload())"
    elif first.endswith(".bias"):
        why = "config.json says that this layer has no bias (attention_bias, mlp_bias)"
    else:
        why = "config.json describes another model than these weights"
    raise ValueError(f"the weights hold {len(strange)} tensors that the model has no place for, first {first}: {why}")


def check_numbers(files: Iterable[Path]) -> None:
    """Refuse weights that are whole numbers, which transformers would take as they are; only headers are read.

    Args:
        files: of a model's weights.

    Raises:
        ValueError: naming the first such tensor.
        SafetensorError, OSError: if a file cannot be read.
    """
    for path in files:
        with safe_open(path, "pt") as stream:
            for name in stream.keys():  # noqa: SIM118  # no mapping
                if (kind := stream.get_slice(name).get_dtype()) not in FLOATS:
                    raise ValueError(
                        f"{name} in {path.name} holds {kind}: numbers of a quantised model, which are not read here; take the "
                        "checkpoint that was quantised"
                    )


def check_tied(embeddings: Any, head: Any) -> None:
    """Refuse an lm_head of its own where the config says that there is none: what trains or stores the model would lose one.

    Args:
        embeddings: [V, hidden] as stored.
        head: the lm_head's weight, as stored.

    Raises:
        ValueError: naming the field.
    """
    if head.shape != embeddings.shape or not bool((head == embeddings).all()):
        raise ValueError(
            "tie_word_embeddings is true in config.json, but the weights hold an lm_head.weight that is not the embeddings; set "
            "it to false if the lm_head is meant, else take lm_head.weight out of the weights"
        )


def check_tokens(vocabulary: Mapping[str, int], rows: int) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for.

    Args:
        vocabulary: ids by token, added ones included.
        rows: of the embedding.

    Raises:
        ValueError: naming the first such token and the remedy.
    """
    beyond = sorted((id, token) for token, id in vocabulary.items() if id >= rows)
    if beyond:
        id, token = beyond[0]
        raise ValueError(
            f"the tokenizer has {len(beyond)} tokens beyond the {rows} rows of the embedding, first {token!r} at {id}; remove "
            "them from tokenizer.json, or give the model rows for them: model.resize_token_embeddings(len(tokenizer))"
        )
