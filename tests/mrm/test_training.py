from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from tests.mrm.examples import FORMATS, VOCABULARY, config_with, labels, tiny_guard

from saffron import config as configs
from saffron import jobs, models, records
from saffron.config import Runtime
from saffron.mrm import training
from saffron.mrm.model import MultifurcationRewardModel, squared_error
from saffron.mrm.targets import Targets, collate

OUTPUTS = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "merged/model.safetensors", "head.safetensors")
VARIANTS = {"default": {}, "random": {"bias": "frozen_random"}, "none": {"bias": "absent"}}


def digests(folder):
    return {name: records.sha256(folder / name) for name in (*OUTPUTS, "losses.parquet")}


def test_training_writes_every_file_and_the_loader_gives_the_trained_model(layout):
    config = config_with(epochs=4.0)
    training.train(jobs.train(config, 0), layout)
    folder = layout.mrm(0)
    model, unseen = models.load_mrm(folder, Runtime(dtype="float32"))
    head = load_file(folder / "head.safetensors")
    assert head["lm_head_bias"].abs().max() > 0
    assert torch.all(head["lm_head_bias"][unseen] == 0)
    assert torch.equal(unseen, load_file(layout.safety4m(0) / "unseen_mask.safetensors")["unseen_mask"])
    assert 0 < int(unseen.sum()) < VOCABULARY
    merged = load_file(folder / "merged" / "model.safetensors")
    assert not any("lora" in name or name.endswith("bias") for name in merged)
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 8
    assert all("q_proj" in name or "v_proj" in name for name in adapter)
    wrapped = PeftModel.from_pretrained(tiny_guard(), folder / "adapter")
    ids = torch.tensor([[13, 14, 15, 16]])
    with torch.no_grad():
        expected = wrapped(input_ids=ids).logits + head["lm_head_bias"]
        assert torch.allclose(model(input_ids=ids).logits, expected, atol=1e-5)
    losses = records.read_table(folder / "losses.parquet", records.LOSSES)
    assert losses["loss"].iloc[-3:].mean() < losses["loss"].iloc[:3].mean()
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "sandbox/guard"
    assert str(layout.root) not in "".join(path.read_text() for path in folder.rglob("*.json"))


def test_two_processes_train_what_one_trains(layout, tmp_path):
    """Started as the workflow starts them."""
    config = config_with(epochs=1.0, processes=2)
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(configs.as_dict(config)))
    command = [sys.executable, "-m", "saffron.cli", "mrm", "train", "--config", str(file), "--out", str(layout.root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert "training in 2 processes" in done.stderr
    together = _trained(layout)
    training.train(jobs.train(config_with(epochs=1.0), 0), layout)
    alone = _trained(layout)
    assert float(alone["lm_head_bias"].abs().max()) > 0
    assert together.keys() == alone.keys()
    assert all(torch.allclose(together[name], tensor, atol=1e-5) for name, tensor in alone.items())


def _trained(layout):
    folder = layout.mrm(0)
    head = load_file(folder / "head.safetensors")["lm_head_bias"]
    return {**load_file(folder / "merged" / "model.safetensors"), "lm_head_bias": head}


@pytest.mark.parametrize("order", ["packed", "paper"])
def test_a_seed_gives_the_same_bytes_and_another_seed_others(layout, order):
    config = config_with(order=order, epochs=0.5)
    training.train(jobs.train(config, 0), layout)
    first = digests(layout.mrm(0))
    training.train(jobs.train(config, 0), layout)
    assert digests(layout.mrm(0)) == first
    layout.model("guard", 0).rename(layout.model("guard", 1).parent.parent / "guard1")
    tiny_guard().save_pretrained(layout.model("guard", 1))
    layout.safety4m(0).rename(layout.safety4m(1))
    training.train(jobs.train(config, 1), layout)
    assert records.sha256(layout.mrm(1) / OUTPUTS[0]) != first[OUTPUTS[0]]


def test_another_draw_is_another_training_seed_of_the_mrm_alone(layout):
    training.train(jobs.train(config_with(epochs=0.5), 0), layout)
    first = digests(layout.mrm(0))
    training.train(jobs.train(config_with(epochs=0.5, draw=1), 0), layout)
    drawn = digests(layout.mrm(0))
    for name in (OUTPUTS[0], "losses.parquet"):  # its initialisation and the order of its rows
        assert drawn[name] != first[name]
    layout.model("guard", 0).parent.rename(layout.model("guard", 1).parent)
    layout.safety4m(0).rename(layout.safety4m(1))
    training.train(jobs.train(config_with(epochs=0.5), 1), layout)
    assert digests(layout.mrm(1)) == drawn


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_bytes(layout, monkeypatch):
    config = config_with(epochs=2.0, schedule="cosine")
    training.train(jobs.train(config, 0), layout)
    whole = digests(layout.mrm(0))
    original = training.learning_rate
    ran: list[int] = []

    def dying(settings, step, total):
        ran.append(step)
        if step == 7 and 8 not in ran:
            raise Killed
        return original(settings, step, total)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", dying)
        with pytest.raises(Killed):
            training.train(jobs.train(config, 0), layout)
        checkpoints = list(layout.mrm(0).parent.glob(".checkpoint-default/*.safetensors"))
        assert len(checkpoints) == 1
        before = len(ran)
        ran.append(8)  # alive again
        training.train(jobs.train(config, 0), layout)
        assert ran[before + 1] == 6  # the last multiple of checkpoint_every = 3 before the kill
    assert digests(layout.mrm(0)) == whole
    assert not checkpoints[0].exists()


def test_a_checkpoint_of_other_settings_is_not_used(layout, monkeypatch):
    training.train(jobs.train(config_with(epochs=1.0), 0), layout)
    expected = digests(layout.mrm(0))
    with monkeypatch.context() as patch:
        patch.setattr(training, "_curve", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            training.train(jobs.train(config_with(epochs=1.0, learning_rate=0.5), 0), layout)
    assert list(layout.mrm(0).parent.glob(".checkpoint-default/*.safetensors"))
    training.train(jobs.train(config_with(epochs=1.0), 0), layout)
    assert digests(layout.mrm(0)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(layout, variant):
    config = config_with(epochs=0.5, variants=VARIANTS)
    training.train(jobs.train(config, 0, variant), layout)
    _, unseen = models.load_mrm(layout.mrm(0, variant), Runtime())
    bias = load_file(layout.mrm(0, variant) / "head.safetensors")["lm_head_bias"]
    trained = {
        "default": bias.abs().max() > 0 and torch.all(bias[unseen] == 0),
        "random": bias.abs().min() > 0,
        "none": bias.abs().max() == 0,
    }
    assert trained[variant]


def test_labels_without_a_train_split_are_refused(layout):
    table = labels().assign(split="test")
    records.write_table(layout.safety4m(0) / "labels.parquet", table, records.SAFETY4M)
    with pytest.raises(records.RecordError, match="train split"):
        training.train(jobs.train(config_with(), 0), layout)


def test_the_lm_head_of_a_guard_with_tied_weights_is_merged_and_loaded(layout):
    tiny_guard(tied=True).save_pretrained(layout.model("guard", 0))
    training.train(jobs.train(config_with(epochs=1.0), 0), layout)
    model, _ = models.load_mrm(layout.mrm(0), Runtime())
    bias = load_file(layout.mrm(0) / "head.safetensors")["lm_head_bias"]
    assert np.allclose(model.get_output_embeddings().bias.detach(), bias)
    assert torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)


@pytest.mark.parametrize(("rows", "world"), [(5, 2), (4, 3), (1, 3)])
def test_processes_that_share_a_step_add_up_to_its_loss(rows, world):
    mrm_model = MultifurcationRewardModel(
        tiny_guard(torch.float64), rank=4, alpha=4.0, modules=["q_proj", "v_proj"], bias="trained", seed=0
    )
    targets = Targets(labels(), FORMATS, "packed")
    indices = np.arange(3, 3 + rows)
    counted = sum(targets.size(int(index)) for index in indices)
    batch = collate([targets.row(int(index)) for index in indices])
    with torch.no_grad():
        whole = squared_error(mrm_model(batch), batch, counted)
        parts = []
        for rank in range(world):
            share, weight = training._share(targets, indices, rank, world)
            parts.append(weight * squared_error(mrm_model(share), share, counted))
    assert float(sum(parts)) / world == pytest.approx(float(whole), rel=1e-12)


def test_labels_that_are_not_finite_are_refused_by_conversation_and_position(layout):
    path = layout.safety4m(0) / "labels.parquet"
    table = records.read_table(path, records.SAFETY4M)
    table["rewards"] = [rewards.copy() for rewards in table["rewards"]]
    table["rewards"][2][1] = np.nan
    records.write_table(path, table, records.SAFETY4M)
    name = table["conversation_id"][2]
    with pytest.raises(records.RecordError, match=rf"labels\.parquet: .* conversation {name} at response token 1 is nan"):
        training.train(jobs.train(config_with(), 0), layout)
    assert not (layout.mrm(0) / "merged").exists()


@pytest.mark.parametrize("checkpoint_every", [2, 1000])
def test_a_training_that_overflows_ends_with_its_step(layout, checkpoint_every):
    config = config_with(epochs=4.0, learning_rate=1e30, checkpoint_every=checkpoint_every)
    with pytest.raises(training.TrainingError, match=r"the loss is (nan|inf) at step \d+ of .*; lower mrm\.learning_rate"):
        training.train(jobs.train(config, 0), layout)
    assert not (layout.mrm(0) / "merged").exists()


def test_a_variant_may_have_settings_of_its_own():
    settings = config_with(lora_rank=16, variants={"default": {}, "small": {"lora_rank": 2, "centred_verdicts": True}})
    default, small = (jobs.train(settings, 0, name).mrm for name in ("default", "small"))
    assert (default.lora_rank, small.lora_rank) == (16, 2)
    assert (default.centred_verdicts, small.centred_verdicts) == (False, True)
    assert (small.learning_rate, small.epochs) == (default.learning_rate, default.epochs)
    assert list(small.variants) == ["small"]
    assert jobs.evaluate(settings, 0, "small").mrm.lora_rank == 2
