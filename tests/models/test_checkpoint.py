"""A model is never taken for what it is not: each case is a tiny checkpoint that transformers itself would load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from replica import models as replica_models
from replica import other_family
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from saffron import config, jobs, models
from saffron.config import Config, Runtime
from saffron.engine.forward import TrieError
from saffron.engine.trie import TokenTrie
from saffron.hub import SourceError
from saffron.layout import Layout
from saffron.models import making

VOCABULARY = 500
LAYER = "model.layers.0"


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Policy and guard, tied and of the Llama class, with ChatML's tokenizer, and a config."""
    folder = tmp_path_factory.mktemp("mirrors")
    other_family.write(folder)
    for seed, role in enumerate(("policy", "guard")):
        width = len(PreTrainedTokenizerFast.from_pretrained(folder / role))
        replica_models.random_model(seed, tied=True, vocabulary=width).save_pretrained(folder / role)
    return folder


@pytest.fixture
def run(mirrors: Path, tmp_path: Path) -> tuple[Config, Layout, Path]:
    """The config over mirrors that a test may spoil, and the folder that holds them."""
    for role in ("policy", "guard"):
        shutil.copytree(mirrors / role, tmp_path / role)
    (tmp_path / "mine.yaml").write_text((mirrors / "mine.yaml").read_text().replace(str(mirrors), str(tmp_path)))
    return config.load(tmp_path / "mine.yaml"), Layout("mine", tmp_path / "out"), tmp_path


def describe(**fields: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return spoil


def replace_by(kind: Any, **settings: Any) -> Callable[[Path], None]:
    """Save the same body as another class of model."""

    def spoil(folder: Path) -> None:
        body = LlamaForCausalLM.from_pretrained(folder)
        model = kind(type(body.config)(**{**body.config.to_dict(), **settings}))
        (model if kind is LlamaModel else model.model).load_state_dict(body.model.state_dict())
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder)

    return spoil


def add(name: str, shape: tuple[int, ...]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path) | {name: torch.full(shape, 100.0)}
        path.unlink()
        save_file(tensors, path, {"format": "pt"})

    return spoil


def whole_numbers(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(tensors | {f"{LAYER}.mlp.up_proj.weight": torch.ones(32, 16, dtype=torch.int8)}, path, {"format": "pt"})


def classify(folder: Path) -> None:
    """A classifier's weights under a language model's name."""
    replace_by(LlamaForTokenClassification, num_labels=2)(folder)
    describe(architectures=["LlamaForCausalLM"])(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            replace_by(LlamaForTokenClassification, num_labels=2),
            r"architectures is LlamaForTokenClassification: no causal language",
        ),
        (
            replace_by(LlamaForSequenceClassification),
            r"architectures is LlamaForSequenceClassification: no causal language model",
        ),
        (replace_by(LlamaModel), r"architectures is LlamaModel: no causal language model, .* architecture ends in ForCausalLM"),
        (describe(architectures=None), r"config\.json has no architectures, .* add its class"),
        (
            describe(architectures=["MistralForCausalLM"]),
            r"architectures is MistralForCausalLM, but model_type llama is loaded as",
        ),
        (describe(auto_map={"AutoModelForCausalLM": "code.Model"}), r"auto_map says .* no code out of a checkpoint is ever run"),
        (
            describe(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
            r"quantised \(bitsandbytes\), .* take the checkpoint that was quantised, or store it plain",
        ),
        (describe(compression_config={"format": "int-quantized"}), r"compression_config says that the weights are quantised"),
        (whole_numbers, r"up_proj\.weight .* holds I8: numbers of a quantised model"),
        (describe(is_causal=False), r"is_causal is false in config\.json: the model reads both ways"),
        (add("lm_head.weight", (VOCABULARY, 16)), r"tie_word_embeddings is true .* lm_head\.weight .* set it to false if"),
        (lambda folder: LoraConfig().save_pretrained(folder), r"adapter_config\.json lies beside .* merge it .* or take the"),
        (describe(num_attention_heads=0), r"cannot drive the model .*; take one of"),
        (describe(hidden_act=[]), r"cannot drive the model .*; take one of"),
        (describe(rope_parameters=[1]), r"cannot drive the model .*; take one of"),
        (describe(num_key_value_heads=3), r"num_attention_heads is 4, which is no multiple of num_key_value_heads, 3"),
        (
            describe(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
            r"rotary embedding turns 2 numbers of a head, head_dim is 4: .* \(partial_rotary_factor, head_dim\)",
        ),
        (
            describe(rope_parameters={"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "attention_factor": "8"}),
            r"attention_factor of the rotary embedding is '8', not a number",
        ),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json holds a list, not a JSON object"),
        (classify, r"2 tensors .* no place for, first score\.bias: it is the head of a classifier: take the causal"),
        (add("lm_head.bias", (VOCABULARY,)), r"first lm_head\.bias: this class of model has no lm_head bias"),
        (add(f"{LAYER}.self_attn.q_proj.bias", (16,)), r"q_proj\.bias: config\.json says that this layer has no bias"),
        (add(f"{LAYER}.self_attn.q_proj.lora_A.weight", (4, 16)), r"it is an adapter's: merge it first"),
        (add("mtp.layers.0.weight", (4, 4)), r"first mtp\.layers\.0\.weight: config\.json describes another model"),
    ],
)
@pytest.mark.parametrize("role", ["policy", "guard"])
def test_a_checkpoint_of_another_kind_is_refused_by_name(
    run: tuple[Config, Layout, Path], role: str, spoil: Callable[[Path], object], message: str
) -> None:
    settings, layout, folder = run
    spoil(folder / role)
    with pytest.raises(SourceError, match=rf"^models\.hub\.{role}: .*{message}"):
        getattr(making, role)(jobs.model(settings, role, 0), layout)
    assert not layout.model(role, 0).exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: None,
        add(f"{LAYER}.self_attn.rotary_emb.inv_freq", (2,)),
        describe(quantization_config=None),
        describe(attn_implementation="flash_attention_2"),
    ],
)
def test_a_tied_checkpoint_with_what_old_ones_hold_is_taken(
    run: tuple[Config, Layout, Path], spoil: Callable[[Path], object]
) -> None:
    settings, layout, folder = run
    spoil(folder / "guard")
    making.guard(jobs.model(settings, "guard", 0), layout)
    loaded: Any = models.load_lm(layout.model("guard", 0), Runtime(device="cpu"))
    ids = torch.tensor([[3, 4, 5]])
    plain = LlamaForCausalLM.from_pretrained(folder / "guard", attn_implementation="sdpa")
    torch.testing.assert_close(loaded(ids).logits, plain(ids).logits)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (add("lm_head.bias", (VOCABULARY,)), r"lm_head\.bias: this class of model has no lm_head bias"),
        (describe(architectures=["LlamaForTokenClassification"]), "no causal language model"),
        (describe(quantization_config={"quant_method": "awq"}), r"quantised \(awq\)"),
        (describe(architectures=["MistralForCausalLM"]), "architectures is MistralForCausalLM, but model_type llama"),
        (add("lm_head.weight", (VOCABULARY, 16)), r"tie_word_embeddings is true"),
        (whole_numbers, r"up_proj\.weight in model\.safetensors holds I8"),
        (describe(num_attention_heads=0), r"not a readable model \(.*\); delete the folder"),
    ],
)
def test_a_mirror_that_changed_since_the_models_stage_is_refused_on_loading(
    run: tuple[Config, Layout, Path], spoil: Callable[[Path], object], message: str
) -> None:
    settings, layout, folder = run
    making.guard(jobs.model(settings, "guard", 0), layout)
    spoil(folder / "guard")
    with pytest.raises(models.ModelError, match=message):
        models.load_lm(layout.model("guard", 0), Runtime(device="cpu"))


def test_tokens_beyond_the_embedding_are_refused_with_a_remedy(run: tuple[Config, Layout, Path]) -> None:
    settings, layout, folder = run
    for role in ("policy", "guard"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / role)
        rows = len(tokenizer)
        tokenizer.add_tokens([AddedToken("<extra>", special=True), AddedToken("<more>", special=True)])
        tokenizer.save_pretrained(folder / role)
    message = rf"^models\.hub\.policy: the tokenizer has 2 tokens beyond the {rows} rows .* first '<extra>' at {rows}; remove"
    with pytest.raises(SourceError, match=message):
        making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    assert not layout.tokenizer.exists()


def test_code_of_a_checkpoint_is_never_run(run: tuple[Config, Layout, Path], tmp_path: Path) -> None:
    settings, layout, folder = run
    ran = tmp_path / "ran"
    for role in ("policy", "guard"):
        (folder / role / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine:\n    pass\n")
    path = folder / "policy/tokenizer_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["code.Mine", None]}}))
    with pytest.raises(SourceError, match=r"^models\.hub\.policy: no readable tokenizer in "):
        making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    describe(model_type="mine", architectures=["MineForCausalLM"], auto_map={"AutoConfig": "code.Mine"})(folder / "guard")
    with pytest.raises(SourceError, match=r"^models\.hub\.guard: auto_map says that the model needs code of its own"):
        making.guard(jobs.model(settings, "guard", 0), layout)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (lambda model: model, "the model"),
        (lambda model: model.model, "the decoder"),
        (lambda model: model.lm_head, "the lm_head"),
        (lambda model: model.model.norm, "the last norm"),
        (lambda model: model.model.layers[1], "layer 1"),
        (lambda model: model.model.layers[0].self_attn, r"layer 0\.self_attn"),
        (lambda model: model.model.layers[0].input_layernorm, r"layer 0\.input_layernorm"),
    ],
)
@pytest.mark.parametrize("kind", ["hook", "pre-hook", "forward"])
def test_the_engine_refuses_what_it_would_pass_by(part: Callable[[Any], Any], name: str, kind: str) -> None:
    model = replica_models.random_model(0, tied=False, vocabulary=20)
    module = part(model)
    if kind == "hook":
        remove = module.register_forward_hook(lambda *arguments: arguments[-1]).remove
    elif kind == "pre-hook":
        remove = module.register_forward_pre_hook(lambda *_: None).remove
    else:
        module.forward = module.forward  # as accelerate and some patches do

        def remove() -> None:
            del module.forward

    with pytest.raises(TrieError, match=rf"^{name} has a forward hook or a forward of its own, which the engine passes by"):
        TokenTrie(model, [[1, 2]])
    remove()
    TokenTrie(model, [[1, 2]])


def test_a_forward_of_another_class_is_one_of_its_own() -> None:
    class Louder(type(replica_models.random_model(0, tied=False, vocabulary=20).model.norm)):  # type: ignore[misc]
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(hidden)

    model = replica_models.random_model(0, tied=False, vocabulary=20)
    model.model.layers[1].input_layernorm.__class__ = Louder
    with pytest.raises(TrieError, match=r"^layer 1\.input_layernorm has a forward hook or a forward of its own"):
        TokenTrie(model, [[1, 2]])


def test_hooks_on_what_the_engine_calls_count() -> None:
    model = replica_models.random_model(0, tied=False, vocabulary=20)
    plain = TokenTrie(model, [[1, 2, 3]]).root_logits
    model.model.layers[0].mlp.register_forward_hook(lambda module, arguments, output: output + 1)
    hooked = TokenTrie(model, [[1, 2, 3]]).root_logits
    assert plain is not None and hooked is not None and not torch.allclose(plain, hooked)
    torch.testing.assert_close(hooked[0], model(torch.tensor([[1, 2, 3]])).logits[0, -1])


MIRRORED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "[1, {}]"])
@pytest.mark.parametrize("name", MIRRORED)
def test_a_json_file_that_holds_no_object_is_refused_by_name(run: tuple[Config, Layout, Path], name: str, content: str) -> None:
    settings, layout, folder = run
    (folder / "guard" / name).write_text(content)
    with pytest.raises(SourceError, match=rf"^models\.hub\.guard: .*guard.*{name}:? holds a .*, not a JSON object; "):
        making.tokenizer(jobs.model(settings, "tokenizer"), layout)
        making.guard(jobs.model(settings, "guard", 0), layout)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_json_file_that_holds_no_object_is_refused_on_loading(run: tuple[Config, Layout, Path], name: str) -> None:
    _, _, folder = run
    (folder / "policy" / name).write_text("[]")
    with pytest.raises(models.ModelError, match=rf"{folder}/policy: .*{name} holds a list, not a JSON object; fetch it again"):
        if name == "config.json":
            models.load_lm(folder / "policy", Runtime(device="cpu"))
        else:
            models.load_tokenizer(folder / "policy")
