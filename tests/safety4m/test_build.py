from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import DatasetCard
from safetensors.numpy import load_file
from transformers import LlamaForCausalLM

from saffron import config as configuration
from saffron import jobs, models, records, safety4m
from saffron.chat import ChatFormats
from saffron.config import Config, ConfigError
from saffron.layout import Layout
from saffron.models import sense
from saffron.models import verdicts as engine
from saffron.models.device import DeviceMemoryError
from saffron.safety4m import build
from saffron.sources.conversations import TokenisedResponse

REAL = os.environ.get("SAFFRON_HH_RLHF_DIR")


def config_with(**settings: object) -> Config:
    values = yaml.safe_load((Path(__file__).parents[2] / "config" / "sandbox.yaml").read_text())
    values["safety4m"] = {"max_tokens": 60, "turns": "all", "block_size": 8, "batch_size": 3} | settings
    return configuration.parse(values, "test")


def run(config: Config, layout: Layout) -> pd.DataFrame:
    for shard in range(config.safety4m.shards):
        safety4m.label(jobs.label(config, 0), layout, shard)
    safety4m.gather(jobs.label(config, 0), layout)
    return records.read_table(layout.safety4m(0) / "labels.parquet", records.SAFETY4M)


def account(card: dict) -> None:
    """Every assistant turn and every source row of a card is somewhere."""
    turns = dict(card["responses"])
    assert turns.pop("assistant_turns") == sum(turns.values())
    rows = card["source_rows"]
    assert rows["total"] == rows["with_labels"] + rows["without_labels"]
    assert card["responses"]["labelled"] == sum(part["responses"] for part in card["splits"].values())
    assert card["rewards"]["count"] == sum(part["prefixes"] for part in card["splits"].values())
    assert sum(card["rewards"]["histogram"]) == card["rewards"]["count"]


def test_labels_hold_the_guards_rewards_of_the_responses(layout):
    config = config_with()
    labels = run(config, layout)
    tokenizer, formats = models.load_tokenizer(layout.tokenizer), ChatFormats.load(layout.tokenizer)
    guard = models.load_lm(layout.model("guard", 0), config.runtime)
    collected, _ = build.collect(records.read_table(layout.conversations, records.CONVERSATIONS), "all")
    texts = {response.conversation_id: response for response in collected}
    ends = 0
    for row in labels.itertuples():
        response = texts[row.conversation_id]
        assert (response.split, response.source_row, response.side, response.turn) == (
            row.split,
            row.source_row,
            row.side,
            row.turn,
        )
        prompt, answer = row.input_ids[: row.response_start], row.input_ids[row.response_start :]
        assert len(answer) == len(row.rewards) >= 1
        assert len(row.input_ids) <= 60
        assert tokenizer.decode(prompt) == response.prompt
        assert response.response.startswith(tokenizer.decode(answer, skip_special_tokens=True))
        ends += answer[-1] == formats.eos_id
    assert 0 < ends < len(labels)
    (last,), _ = engine.verdicts(guard, formats, [TokenisedResponse(prompt.tolist(), answer.tolist())], batch_size=1)
    assert np.abs(last - row.rewards).max() < 1e-4


def test_every_turn_is_accounted_for_and_the_card_says_so(layout):
    labels = run(config_with(), layout)
    card = records.read_json(layout.safety4m(0) / "card.json")
    account(card)
    assert card["source_rows"]["total"] == 18
    assert card["responses"]["empty"] == 1
    assert card["responses"]["outside_the_window"] == 2  # both sides of row 7
    assert card["responses"]["duplicates"] > 0
    assert card["responses"]["labelled"] == len(labels)
    readme = (layout.safety4m(0) / "README.md").read_text()
    assert DatasetCard(readme).data.to_dict() == {
        "pretty_name": card["name"],
        "license": "cc-by-4.0",
        "configs": [{"config_name": "default", "data_files": "labels.parquet"}],
    }
    assert f"| labelled | {len(labels)} |" in readme
    assert str(layout.root) not in readme
    assert f"- Source: someone/chats at revision {'0' * 40}. Licence: CC-BY-4.0." in readme
    assert "license: cc-by-4.0" in readme


def test_conversations_without_anything_to_label_end_the_stage(layout):
    rows = [{"source_row": i, "split": "train", "subset": "x", "chosen": "bread", "rejected": None} for i in range(3)]
    records.write_table(layout.conversations, rows, records.CONVERSATIONS)
    with pytest.raises(records.RecordError, match=r"conversations\.parquet: no response could be labelled"):
        run(config_with(), layout)


def test_the_mask_holds_the_tokens_that_are_no_target_of_the_train_split(layout):
    labels = run(config_with(), layout)
    mask = load_file(layout.safety4m(0) / "unseen_mask.safetensors")["unseen_mask"]
    train = labels[labels["split"] == "train"]
    targets = {int(token) for row in train.itertuples() for token in row.input_ids[row.response_start :]}
    assert mask.shape == (400,)
    assert set(np.flatnonzero(~mask).tolist()) == targets


def test_any_number_of_shards_gives_the_same_bytes(layout):
    digests = []
    for shards in (1, 3):
        run(config_with(shards=shards), layout)
        digests.append([records.sha256(layout.safety4m(0) / name) for name in ("labels.parquet", "unseen_mask.safetensors")])
    assert digests[0] == digests[1]


def test_memory_that_is_too_small_halves_the_batch_and_is_noted(layout, monkeypatch):
    config = config_with(batch_size=4)
    whole = run(config, layout)
    shard = layout.safety4m_shard(0, 0)
    assert not shard.with_suffix(".batches.json").exists()  # on a CPU, as the config says
    for path in build.blocks_folder(jobs.label(config, 0), layout).iterdir():
        path.unlink()
    read = engine._batch_verdicts

    def hungry(guard, formats, batch, positions):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no memory")
        return read(guard, formats, batch, positions)

    monkeypatch.setattr(engine, "_batch_verdicts", hungry)
    halved = run(config, layout)
    exact = [name for name in whole if name != "rewards"]
    pd.testing.assert_frame_equal(halved[exact], whole[exact])
    assert np.abs(np.concatenate(halved["rewards"]) - np.concatenate(whole["rewards"])).max() < 1e-5
    noted = records.read_json(shard.with_suffix(".batches.json"))
    assert len(noted) == len([path for path in build.blocks_folder(jobs.label(config, 0), layout).glob("*.parquet")]) > 1
    assert all(record == {"device": "cpu", "batch_size": 2} for record in noted.values())
    monkeypatch.setattr(engine, "_batch_verdicts", _never)
    for path in build.blocks_folder(jobs.label(config, 0), layout).iterdir():
        path.unlink()
    with pytest.raises(DeviceMemoryError, match=r"use a GPU with more memory, or make safety4m\.max_tokens smaller"):
        safety4m.label(jobs.label(config, 0), layout, 0)


def _never(*_):
    raise torch.OutOfMemoryError("no memory")


class Killed(Exception):
    """Stands for the end of the process."""


def test_finished_blocks_are_not_labelled_again(layout, monkeypatch):
    config = config_with()
    whole = run(config, layout)
    blocks = build.blocks_folder(jobs.label(config, 0), layout)
    done = sorted(blocks.iterdir())
    assert len(done) > 2
    kept = {path.name: path.stat().st_mtime_ns for path in done[:2]}
    for path in done[2:]:
        path.unlink()
    labelled = []
    original = engine.verdicts

    def counting(guard, formats, responses, **keywords):
        labelled.append(len(responses))
        if len(labelled) == 2:
            raise Killed
        return original(guard, formats, responses, **keywords)

    monkeypatch.setattr(engine, "verdicts", counting)
    with pytest.raises(Killed):
        safety4m.label(jobs.label(config, 0), layout, 0)
    assert len(list(blocks.iterdir())) == 3
    safety4m.label(jobs.label(config, 0), layout, 0)
    assert len(labelled) == 2 + len(done) - 3
    assert {name: (blocks / name).stat().st_mtime_ns for name in kept} == kept
    safety4m.gather(jobs.label(config, 0), layout)
    again = records.read_table(layout.safety4m(0) / "labels.parquet", records.SAFETY4M)
    pd.testing.assert_frame_equal(again, whole)


def test_blocks_of_other_settings_guards_or_conversations_are_not_used(layout, tmp_path):
    from tests.safety4m.conftest import conversations, save_guard

    config = config_with()
    folder = build.blocks_folder(jobs.label(config, 0), layout)
    assert build.blocks_folder(jobs.label(config_with(shards=4), 0), layout) == folder
    assert build.blocks_folder(jobs.label(config_with(max_tokens=50), 0), layout) != folder
    save_guard(layout.model("guard", 0), 400, seed=1)
    other = build.blocks_folder(jobs.label(config, 0), layout)
    assert other != folder
    records.write_table(layout.conversations, conversations(17), records.CONVERSATIONS)
    assert build.blocks_folder(jobs.label(config, 0), layout) not in (folder, other)


def test_shards_of_other_conversations_are_refused(layout):
    from tests.safety4m.conftest import conversations

    config = config_with()
    safety4m.label(jobs.label(config, 0), layout, 0)
    records.write_table(layout.conversations, conversations(5), records.CONVERSATIONS)
    with pytest.raises(records.RecordError, match="label them again"):
        safety4m.gather(jobs.label(config, 0), layout)
    with pytest.raises(records.RecordError, match="no such table"):
        safety4m.gather(jobs.label(config_with(shards=2), 0), layout)
    with pytest.raises(ConfigError, match="there is no shard 1"):
        safety4m.label(jobs.label(config, 0), layout, 1)


@pytest.mark.skipif(REAL is None, reason="set SAFFRON_HH_RLHF_DIR to a folder with harmless-base-test.jsonl.gz")
def test_the_real_conversations_are_labelled_and_every_row_accounted_for(layout):
    from saffron.config import Conversations
    from saffron.sources.reading import Dropped, Row, readers

    settings = Conversations.model_validate({"from": "path", "path": str(REAL), "reader": "preference_pairs"})
    reader, rows = readers()["preference_pairs"], []
    with gzip.open(Path(str(REAL)) / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            try:
                pair = reader.conversation(Row("", json.loads(line)), settings.reader_settings())
            except Dropped:
                continue
            rows.append({"source_row": number, "split": "test", "subset": "x", "chosen": pair.chosen, "rejected": pair.rejected})
    table = pd.DataFrame(rows)
    records.write_table(layout.conversations, table, records.CONVERSATIONS)
    config = config_with(turns="last", max_tokens=128, block_size=256, batch_size=16)
    labels = run(config, layout)
    card = records.read_json(layout.safety4m(0) / "card.json")
    account(card)
    assert card["source_rows"]["total"] == len(table) > 2300
    assert len(labels) > 0
    assert labels["rewards"].map(lambda rewards: bool(np.isfinite(rewards).all())).all()


def spoil(layout, token):
    """Damage the guard's embedding of one token, which no built-in exchange holds."""
    folder = layout.model("guard", 0)
    guard = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        guard.model.embed_tokens.weight[token] = torch.nan
    guard.save_pretrained(folder)


def test_a_reward_that_is_not_finite_ends_labelling_before_it_is_stored(layout):
    config = config_with()
    tokenizer, formats = models.load_tokenizer(layout.tokenizer), ChatFormats.load(layout.tokenizer)
    texts = [text for exchange in (*sense.HARMLESS, *sense.REFUSED) for text in exchange]
    known = {id for ids in formats.encode(tokenizer, texts) for id in ids} | formats.ids
    token = next(id for id in formats.encode(tokenizer, [" rope press"])[0] if id not in known)
    spoil(layout, token)
    with pytest.raises(
        models.ModelError, match=r"models/seed0/guard: the reward of conversation \S+ at response token \d+ is nan"
    ):
        run(config, layout)
    assert not layout.safety4m_shard(0, 0).exists()


def test_a_guard_that_makes_no_sense_is_refused_before_labelling(layout):
    guard = LlamaForCausalLM.from_pretrained(layout.model("guard", 0))
    with torch.no_grad():
        guard.lm_head.weight.zero_()
    guard.save_pretrained(layout.model("guard", 0))
    with pytest.raises(models.ModelError, match=r"models/seed0/guard: the reward of all 8 built-in exchanges is 0"):
        run(config_with(), layout)


def test_stored_rewards_that_are_not_finite_are_refused_on_gathering(layout):
    config = config_with()
    run(config, layout)
    path = layout.safety4m_shard(0, 0)
    table = records.read_table(path, records.SAFETY4M)
    table["rewards"] = [rewards if row != 3 else np.full_like(rewards, np.inf) for row, rewards in enumerate(table["rewards"])]
    records.write_table(path, table, records.SAFETY4M)
    name = table["conversation_id"][3]
    with pytest.raises(records.RecordError, match=rf"column rewards: .* conversation {name} at response token 0 is inf; delete"):
        safety4m.gather(jobs.label(config, 0), layout)
