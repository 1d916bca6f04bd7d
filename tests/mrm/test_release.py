from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from replica.models import random_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from saffron import jobs, models
from saffron.chat import ChatFormat, ChatFormats
from saffron.config import MRM, Config, Runtime
from saffron.layout import Layout
from saffron.mrm import card, release, training
from saffron.mrm.agreement import as_record, intervals, statistics
from saffron.mrm.release import ReleaseError

LAYERS, VOCABULARY, UNSEEN, EOS = 16, 40, 29, 39


def write_release(folder: Path, seed: int = 0) -> None:
    """A made-up release in the exact format: 64 float32 tensors, a bfloat16 Parameter, a bool mask with EOS unseen."""
    adapted: Any = get_peft_model(
        random_model(1, tied=True, layers=LAYERS, vocabulary=VOCABULARY),
        LoraConfig(r=4, lora_alpha=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at first
            nn.init.normal_(parameter)
    adapted.save_pretrained(folder)
    unseen = torch.zeros(VOCABULARY, dtype=torch.bool)
    unseen[-UNSEEN:] = True
    torch.save(nn.Parameter(torch.randn(VOCABULARY).bfloat16()), folder / "lm_head_bias.pt")
    torch.save(unseen, folder / "unseen_mask.pt")


@pytest.fixture
def run(tmp_path: Path) -> tuple[Layout, Path]:
    """A guard and its tokenizer folder as the models stage leaves them, and a release for it."""
    layout = Layout("c", tmp_path)
    random_model(1, tied=True, layers=LAYERS, vocabulary=VOCABULARY).save_pretrained(layout.model("guard", 0))
    chat = ChatFormat((1,), (2,), ())
    ChatFormats(chat, chat, chat, safe_id=3, unsafe_id=4, eos_id=EOS).save(layout.tokenizer)
    source = tmp_path / "Saffron-1-1B"
    write_release(source)
    return layout, source


def config_for(source: Path, **changes: object) -> Config:
    section = MRM.model_validate({"from": "released", "released": str(source), "released_unseen": UNSEEN, **changes})
    return Config.model_construct(name="c", runtime=Runtime(device="cpu"), mrm=section, models=models_section())


def models_section() -> Any:
    from saffron.config import Models

    files = {role: {"id": f"someone/{role}", "path": "."} for role in ("policy", "guard")}
    return Models.model_validate({"from": "hub", "hub": files})


def test_the_release_becomes_the_files_that_training_writes(run: tuple[Layout, Path]) -> None:
    layout, source = run
    training.train(jobs.train(config_for(source), 0), layout)
    model, unseen = models.load_mrm(layout.mrm(0), Runtime(device="cpu"))
    ids = torch.tensor([[1, 5, 2, 7]])
    guard = models.load_lm(layout.model("guard", 0), Runtime(device="cpu"))
    reference = PeftModel.from_pretrained(guard, str(source)).merge_and_unload()
    torch.testing.assert_close(model(ids).logits, reference(ids).logits, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(model(ids).logits, models.load_lm(layout.model("guard", 0), Runtime(device="cpu"))(ids).logits)
    mask = torch.load(source / "unseen_mask.pt", weights_only=True)
    assert torch.equal(unseen, mask) and mask[EOS]  # whether EOS counts as seen is the search's business
    assert len(load_file(layout.mrm(0) / "adapter" / "adapter_model.safetensors")) == 64


def test_the_bias_is_added_only_when_asked_for(run: tuple[Layout, Path]) -> None:
    layout, source = run
    ids = torch.tensor([[1, 5, 2, 7]])
    training.train(jobs.train(config_for(source), 0), layout)
    without = models.load_mrm(layout.mrm(0), Runtime(device="cpu"))[0](ids).logits
    training.train(jobs.train(config_for(source, released_bias=True), 0), layout)
    bias = torch.load(source / "lm_head_bias.pt", weights_only=True).detach().float()
    torch.testing.assert_close(
        models.load_mrm(layout.mrm(0), Runtime(device="cpu"))[0](ids).logits, without + bias, rtol=1e-5, atol=1e-4
    )


def test_the_card_says_that_it_is_the_release_and_was_not_trained_here(run: tuple[Layout, Path]) -> None:
    _, source = run
    prm = [0.5 * number for number in range(20)]
    points = pd.DataFrame({"conversation_id": range(20), "prm_reward": prm, "mrm_reward": prm[::-1]})
    evaluation = {
        **as_record(statistics(points)),
        "persistence": as_record(statistics(points)),
        "held_out_prefixes": 9,
        "confidence": 0.95,
        "intervals": intervals(points, samples=100, seed=0, confidence=0.95),
    }
    labels = {"name": "labels", "guard": "a guard", "splits": {"train": {"prefixes": 5}}}
    labels["source"] = {"name": "someone/chats at revision x", "licence": "CC-BY-4.0"}
    cards = {}
    for bias in (False, True):
        cards[bias] = card.render(jobs.evaluate(config_for(source, released_bias=bias), 0), evaluation, labels)
        assert "the authors' released adapter, merged into the guard; nothing was trained here" in cards[bias].lower()
        assert "AdamW" not in cards[bias] and "## Training" not in cards[bias]
        assert str(source) not in cards[bias]
    for text in cards.values():
        read = ModelCard(text).data.to_dict()
        assert read == {"library_name": "transformers", "tags": ["reward-model", "safety", "peft"]}, "a guard is no hub id"
    labels["guard"] = "someone/a-guard"
    assert ModelCard(card.render(jobs.evaluate(config_for(source), 0), evaluation, labels)).data.base_model == "someone/a-guard"
    assert "bias is left out (zeros)" in cards[False] and "bias is added" in cards[True]
    ours = config_for(source).model_copy(update={"mrm": MRM.model_validate({"from": "train"})})
    trained = card.render(jobs.evaluate(ours, 0), evaluation, labels)
    assert "nothing was trained here" not in trained
    assert "- Conversations: someone/chats at revision x. Licence: CC-BY-4.0." in trained


def test_export_and_load_give_the_same_model(run: tuple[Layout, Path], tmp_path: Path) -> None:
    layout, source = run
    training.train(jobs.train(config_for(source, released_bias=True), 0), layout)
    exported = tmp_path / "exported"
    release.export(layout.mrm(0), exported)
    assert {path.name for path in exported.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "lm_head_bias.pt",
        "unseen_mask.pt",
    }
    bias = torch.load(exported / "lm_head_bias.pt", weights_only=True)
    assert isinstance(bias, nn.Parameter) and bias.dtype == torch.bfloat16
    again = Layout("again", tmp_path)
    for path in (layout.model("guard", 0), layout.tokenizer):
        target = again.data / path.relative_to(layout.data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    training.train(jobs.train(config_for(exported, released_bias=True, released_unseen=UNSEEN), 0), again)
    for name in ("merged/model.safetensors", "head.safetensors"):
        ours, theirs = load_file(again.mrm(0) / name), load_file(layout.mrm(0) / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    with pytest.raises(ReleaseError, match="not empty; name a new folder"):
        release.export(layout.mrm(0), exported)
    job = layout.mrm(0).with_name("default.job.json")
    job.write_text(job.read_text().replace('"unembedding_scale": 1.0', '"unembedding_scale": 0.1'))
    with pytest.raises(ReleaseError, match=r"trained with mrm\.unembedding_scale .* the release's layout has no lm_head"):
        release.export(layout.mrm(0), tmp_path / "another")
    with pytest.raises(ReleaseError, match="no trained MRM here; run the stage mrm"):
        release.export(tmp_path / "absent", tmp_path / "new")


def _edit(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / release.ADAPTER)
        change(tensors)
        save_file(tensors, folder / release.ADAPTER)

    return apply


LAST = "base_model.model.model.layers.15.self_attn.v_proj.lora_B.weight"


def _other_rank(folder: Path) -> None:
    path = folder / release.ADAPTER_CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 8}))


def _described(**fields: object) -> Callable[[Path], object]:
    """Other fields in the adapter's description."""

    def spoil(folder: Path) -> None:
        path = folder / release.ADAPTER_CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return spoil


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({}, 1.0),
        ({"use_rslora": True}, 2.0),  # alpha / sqrt(r) in place of alpha / r
        ({"alpha_pattern": {"q_proj": 12, "v_proj": 12}}, 3.0),
        ({"inference_mode": False, "init_lora_weights": "gaussian", "rank_pattern": {}, "modules_to_save": None}, 1.0),
    ],
)
def test_an_adapter_is_merged_at_the_scale_that_it_describes(
    run: tuple[Layout, Path], fields: dict[str, object], scale: float
) -> None:
    layout, source = run
    _described(**fields)(source)
    training.train(jobs.train(config_for(source), 0), layout)
    merged = load_file(layout.mrm(0) / "merged/model.safetensors")
    guard = load_file(layout.model("guard", 0) / "model.safetensors")
    adapter = load_file(source / release.ADAPTER)
    name = LAST.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
    change = adapter[LAST] @ adapter[LAST.replace("lora_B", "lora_A")]
    torch.testing.assert_close(merged[f"{name}.weight"], guard[f"{name}.weight"] + scale * change, rtol=1e-5, atol=1e-5)
    assert merged.keys() == guard.keys()
    changed = {key for key in guard if not torch.equal(merged[key], guard[key])}
    assert changed == {f"model.layers.{n}.self_attn.{module}.weight" for n in range(LAYERS) for module in ("q_proj", "v_proj")}


def _pickled(folder: Path) -> None:
    (folder / release.MASK).write_bytes(pickle.dumps(Path("x")))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_edit(lambda tensors: tensors.pop(LAST)), r"63 tensors, the guard takes 64; it is another model's adapter"),
        (
            _edit(lambda tensors: tensors.update({LAST: torch.zeros(3, 4)})),
            r"v_proj\.lora_B\.weight is torch\.float32 of shape \(3, 4\), expected",
        ),
        (_edit(lambda tensors: tensors.update({LAST: tensors[LAST].half()})), r"lora_B\.weight is torch\.float16 of shape"),
        (_edit(lambda tensors: tensors.update({"other": tensors.pop(LAST)})), r"lora_B\.weight is missing, expected float32"),
        *(
            (
                _described(**{name: value}),
                rf"adapter_config\.json: {name} is .*, which is not read here: an MRM is the guard's own",
            )
            for name, value in [
                ("use_dora", True),
                ("bias", "lora_only"),
                ("modules_to_save", ["lm_head"]),
                ("rank_pattern", {"q_proj": 8}),
                ("layers_to_transform", [0]),
                ("fan_in_fan_out", True),
                ("lora_bias", True),
                ("init_lora_weights", "pissa"),
                ("a_field_of_tomorrow", 1),
            ]
        ),
        (_described(r=None), r"adapter_config\.json: r is None, expected a whole number from 1 on; fetch it again"),
        (_described(r=True), r"adapter_config\.json: r is True, expected a whole number"),
        (_described(lora_alpha=-1), r"adapter_config\.json: lora_alpha is -1, expected a number above 0"),
        (_described(alpha_pattern=True), r"adapter_config\.json: alpha_pattern is True, expected numbers above 0 by module"),
        (_described(use_rslora="no"), r"adapter_config\.json: use_rslora is 'no', expected true or false"),
        (_described(task_type=["x"]), r"adapter_config\.json: peft cannot read it \(.*\); fetch it again"),
        (_described(peft_type="IA3"), r"peft_type is IA3, but only LORA can be merged"),
        (_described(target_modules=["q_proj"]), r"target_modules is \['q_proj'\], but mrm\.lora_modules is .* make them agree"),
        (_described(target_modules=".*_proj"), r"target_modules is '\.\*_proj'; an MRM has LoRA on some of q_proj, "),
        (lambda folder: (folder / release.ADAPTER_CONFIG).write_text("[]"), r"\.json: holds a list, not a JSON object"),
        (_other_rank, r"adapter_config\.json: r is 8, but mrm\.lora_rank is 4; make them agree"),
        (
            lambda folder: (folder / release.ADAPTER).write_bytes((folder / release.ADAPTER).read_bytes()[:500]),
            r"lacks a readable adapter_config\.json or adapter_model\.safetensors",
        ),
        (
            lambda folder: (folder / release.ADAPTER).unlink(),
            r"mrm\.released: .* lacks adapter_model\.safetensors; it must name the release's whole folder",
        ),
        (
            lambda folder: (folder / release.MASK).unlink(),
            r"mrm\.released: .* lacks unseen_mask\.pt; it must name the release's whole folder",
        ),
        (_pickled, r"unseen_mask\.pt: not a file of tensors alone"),
        (lambda folder: torch.save([1, 2], folder / release.MASK), r"unseen_mask\.pt: holds list, expected a tensor"),
        (
            lambda folder: torch.save(torch.ones(VOCABULARY, dtype=torch.bool), folder / release.MASK),
            r"40 unseen tokens, .* says 29; is it",
        ),
        (
            lambda folder: torch.save(torch.ones(7, dtype=torch.bool), folder / release.MASK),
            r"of shape \(7,\), expected bool of shape \(40,\)",
        ),
        (
            lambda folder: torch.save(torch.ones(7), folder / release.BIAS),
            r"lm_head_bias\.pt: .* of shape \(7,\), expected numbers",
        ),
    ],
)
def test_a_release_that_differs_is_refused(run: tuple[Layout, Path], spoil: Callable[[Path], object], message: str) -> None:
    layout, source = run
    spoil(source)
    with pytest.raises(ReleaseError, match=message):
        training.train(jobs.train(config_for(source), 0), layout)
    assert not layout.mrm(0).exists()


def test_a_release_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    settings = MRM.model_validate({"from": "released", "released": str(tmp_path / "absent")})
    with pytest.raises(ReleaseError, match=r"^mrm\.released: no folder .*absent; it must name the release's whole folder"):
        release.require_files(settings)


def test_the_real_releases_shapes_are_sixty_four_tensors() -> None:
    shapes = release.expected_shapes(random_model(0, tied=True, layers=16, vocabulary=8), 4, ["q_proj", "v_proj"])
    assert len(shapes) == 64
    assert shapes["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] == (4, 16)
    assert shapes["base_model.model.model.layers.15.self_attn.v_proj.lora_B.weight"] == (8, 4)


def test_a_release_with_lora_on_other_layers_is_read_if_the_config_says_so(run: tuple[Layout, Path]) -> None:
    layout, source = run
    modules = ["up_proj", "o_proj"]
    guard = models.load_lm(layout.model("guard", 0), Runtime(device="cpu"))
    before = guard.model.layers[1].mlp.up_proj.weight.clone()
    shapes = release.expected_shapes(guard, 4, modules)
    save_file({name: torch.full(shape, 0.1) for name, shape in shapes.items()}, source / release.ADAPTER)
    _described(target_modules=modules)(source)
    training.train(jobs.train(config_for(source, lora_modules=modules), 0), layout)
    merged = load_file(layout.mrm(0) / "merged/model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    torch.testing.assert_close(merged, before + 4 * 0.1 * 0.1)
