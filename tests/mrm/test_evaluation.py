from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.mrm.examples import FORMATS, VOCABULARY, config_with, labels, tiny_guard

from saffron import jobs, models, records
from saffron.config import Runtime
from saffron.mrm import evaluation, training
from saffron.mrm.agreement import as_record, intervals, persistence, statistics
from saffron.mrm.evaluation import first_reward, predictions
from saffron.mrm.model import observed_rewards

PAPER = Path(__file__).parents[2] / "data" / "reference" / "paper" / "figure4b_summary.csv"


def points(prm, mrm_rewards, clusters=None):
    clusters = clusters if clusters is not None else range(len(prm))
    return pd.DataFrame({"conversation_id": [f"c{c}" for c in clusters], "prm_reward": prm, "mrm_reward": mrm_rewards})


def test_every_statistic_of_the_paper_has_its_name():
    with PAPER.open() as stream:
        names = {row["statistic"] for row in csv.DictReader(stream)}
    assert set(statistics(points([0.0, 1.0], [0.5, 1.0]))) == names


def test_statistics_by_hand():
    found = statistics(points([-1.0, 0.0, 1.0, 4.0], [-1.5, -0.5, 1.0, 6.0]))
    assert found["n_points"] == 4
    assert (found["prm_reward_min"], found["prm_reward_max"], found["prm_reward_mean"]) == (-1.0, 4.0, 1.0)
    assert found["fraction_prm_negative"] == 0.25
    assert found["mae"] == pytest.approx(0.75)
    assert found["rmse"] == pytest.approx(np.sqrt(4.5 / 4))
    assert found["mean_signed_error"] == pytest.approx(0.25)
    assert found["fraction_within_1"] == 0.75
    assert found["sign_agreement"] == 0.75
    assert found["pearson_r"] == pytest.approx(np.corrcoef([-1, 0, 1, 4], [-1.5, -0.5, 1, 6])[0, 1])
    assert found["r_squared"] == pytest.approx(1 - 4.5 / 14)


def test_undefined_statistics_are_null():
    found = as_record(statistics(points([1.0, 1.0], [1.0, 2.0])))
    assert found["pearson_r"] is None
    assert found["r_squared"] is None


def test_intervals_hold_the_value_and_resample_whole_responses():
    rng = np.random.default_rng(0)
    prm = rng.normal(size=400)
    error = np.repeat(rng.normal(size=20), 20)
    alike = points(prm, prm + error, np.repeat(np.arange(20), 20))
    single = points(prm, prm + error)
    wide, narrow = (intervals(table, samples=1000, seed=0, confidence=0.95)["mean_signed_error"] for table in (alike, single))
    assert wide[0] < error.mean() < wide[1]
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_predictions_are_the_loaded_models_logits(layout):
    training.train(jobs.train(config_with(epochs=1.0), 0), layout)
    model, _ = models.load_mrm(layout.mrm(0), Runtime())
    table = labels()
    found, _ = predictions(model, table, FORMATS, 15, seed=4)
    assert len(found) == 15
    assert len(found[["conversation_id", "position"]].drop_duplicates()) == 15
    for point in found.itertuples():
        row = table[table["conversation_id"] == point.conversation_id].iloc[0]
        start = row["response_start"]
        ids = [*FORMATS.mrm.prompt(row["input_ids"][:start]), *row["input_ids"][start : start + point.position]]
        logits = model(input_ids=torch.tensor([[int(i) for i in ids]])).logits[0, -1]
        assert point.token == row["input_ids"][start + point.position]
        assert point.prm_reward == row["rewards"][point.position]
        assert point.mrm_reward == pytest.approx(float(logits[point.token]), abs=1e-5)


def test_persistence_predicts_the_reward_before_the_token():
    model = tiny_guard()
    model.get_output_embeddings().bias = torch.nn.Parameter(torch.zeros(VOCABULARY), requires_grad=False)
    table = labels()
    first = first_reward(table)
    assert first == pytest.approx(np.mean([row.rewards[0] for row in table[table["split"] == "train"].itertuples()]))
    found, _ = predictions(model, table, FORMATS, 1000, 0, first)
    rewards = table.set_index("conversation_id")["rewards"]
    for point in found.itertuples():
        before = rewards[point.conversation_id][point.position - 1] if point.position else np.float32(first)
        assert point.previous_reward == before
    still = persistence(found)
    assert statistics(still)["mae"] == pytest.approx(np.abs(found["previous_reward"] - found["prm_reward"]).mean())
    assert first_reward(table[table["split"] == "test"]) == 0.0


@pytest.mark.parametrize("changed", [{"unembedding_scale": 0.1, "centred_verdicts": True}, {}])
def test_a_changed_head_is_stored_with_the_model(layout, changed):
    tiny_guard(tied=True).save_pretrained(layout.model("guard", 0))
    settings = config_with(epochs=0.5, **changed)
    training.train(jobs.train(settings, 0), layout)
    model, _ = models.load_mrm(layout.mrm(0), Runtime())
    before = models.load_lm(layout.model("guard", 0), Runtime()).get_output_embeddings().weight
    after = model.get_output_embeddings().weight
    torch.testing.assert_close(after[12:], changed.get("unembedding_scale", 1.0) * before[12:])
    if changed:
        torch.testing.assert_close(after[FORMATS.safe_id], -after[FORMATS.unsafe_id])
    evaluation.evaluate(jobs.evaluate(settings, 0), layout)
    card = (layout.mrm(0) / "README.md").read_text()
    assert ("`adapter/` was trained with it" in card) is bool(changed)


def test_memory_that_is_too_small_halves_the_batch_and_changes_no_prediction(monkeypatch):
    model = tiny_guard(torch.float64)
    model.get_output_embeddings().bias = torch.nn.Parameter(torch.zeros(VOCABULARY, dtype=torch.float64), requires_grad=False)
    table = labels()
    whole, size = predictions(model, table, FORMATS, 1000, seed=0)
    assert size == 16
    sizes = []

    def hungry(decoder, weight, bias, batch):
        sizes.append(len(batch.input_ids))
        if sizes[-1] > 5:
            raise torch.OutOfMemoryError("no memory")
        return observed_rewards(decoder, weight, bias, batch)

    monkeypatch.setattr("saffron.mrm.evaluation.observed_rewards", hungry)
    halved, size = predictions(model, table, FORMATS, 1000, seed=0)
    assert (size, sizes) == (4, [16, 8, 4, 4, 4, 4, 4, 4])
    pd.testing.assert_frame_equal(halved, whole)
    monkeypatch.setattr("saffron.mrm.evaluation.device.free_bytes", lambda _: 0)
    assert predictions(model, table, FORMATS, 1000, seed=0)[1] == 1


def test_evaluation_reads_the_test_split_only_and_is_the_same_for_every_variant(layout):
    config = config_with(epochs=0.5, variants={"default": {}, "none": {"bias": "absent"}})
    for variant in ("default", "none"):
        training.train(jobs.train(config, 0, variant), layout)
        evaluation.evaluate(jobs.evaluate(config, 0, variant), layout)
    tables = [records.read_table(layout.mrm(0, v) / "evaluation.parquet", records.MRM_EVALUATION) for v in ("default", "none")]
    same = ["conversation_id", "position", "token", "prm_reward"]
    pd.testing.assert_frame_equal(tables[0][same], tables[1][same])
    test = labels().query("split == 'test'")
    assert set(tables[0]["conversation_id"]) <= set(test["conversation_id"])
    record = records.read_json(layout.mrm(0) / "evaluation.json")
    assert record["persistence"] == statistics(persistence(tables[0]))
    assert record["n_points"] == min(20, sum(map(len, test["rewards"]))) == len(tables[0])
    assert (record["batch_size"], record["device"]) == (16, "cpu")
    assert record["held_out_prefixes"] == sum(map(len, test["rewards"]))
    card = (layout.mrm(0) / "README.md").read_text()
    assert f"{record['mae']:.4f}" in card
    assert str(layout.root) not in card


def test_an_mrm_that_gives_no_number_is_refused_by_conversation(layout):
    config = config_with()
    training.train(jobs.train(config, 0), layout)
    head = records.read_tensors(layout.mrm(0) / models.HEAD)
    models.save_mrm_head(layout.mrm(0), torch.full_like(head["lm_head_bias"], torch.inf), head["unseen_mask"])
    with pytest.raises(
        models.ModelError, match=r"mrm/seed0/default: the reward of conversation \S+( at held-out prefix 0)? is inf"
    ):
        evaluation.evaluate(jobs.evaluate(config, 0), layout)
    assert not (layout.mrm(0) / "evaluation.json").exists()
