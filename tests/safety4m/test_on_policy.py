"""A share of labels on the policy's own attacked answers: which, what they are, and what the card says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from methods.reference_baselines import Reference, no_defense
from tests.safety4m.conftest import save_guard

from saffron import config as configuration
from saffron import jobs, models, records, safety4m, workflow
from saffron.chat import ChatFormats
from saffron.config import Config, ConfigError
from saffron.layout import Layout
from saffron.methods.base import SearchPrompt
from saffron.methods.random import RandomKey
from saffron.models.verdicts import verdicts
from saffron.safety4m import build
from saffron.sources.conversations import Response, TokenisedResponse, collect

WINDOW, PREFILL, NEW = 60, 3, 6


def config_with(share: float, **changes: Any) -> Config:
    values = yaml.safe_load((Path(__file__).parents[2] / "config" / "sandbox.yaml").read_text())
    values["safety4m"] = {"max_tokens": WINDOW, "turns": "all", "block_size": 8, "batch_size": 3, "on_policy_share": share}
    values["safety4m"] |= changes
    values["search"] |= {"prefill_tokens": PREFILL, "max_new_tokens": NEW}
    return configuration.parse(values, "test")


def run(config: Config, layout: Layout) -> Any:
    for shard in range(config.safety4m.shards):
        safety4m.label(jobs.label(config, 0), layout, shard)
    safety4m.gather(jobs.label(config, 0), layout)
    return records.read_table(layout.safety4m(0) / "labels.parquet", records.SAFETY4M)


@pytest.fixture
def with_policy(layout: Layout) -> Layout:
    save_guard(layout.model("policy", 0), 400, seed=5)
    return layout


def test_they_are_what_no_defense_answers_and_the_guard_says_what_they_are_worth(with_policy: Layout) -> None:
    layout, config = with_policy, config_with(0.5)
    labels = run(config, layout)
    tokenizer, formats = models.load_tokenizer(layout.tokenizer), ChatFormats.load(layout.tokenizer)
    policy, guard = (models.load_lm(layout.model(which, 0), config.runtime) for which in ("policy", "guard"))
    responses, _ = collect(records.read_table(layout.conversations, records.CONVERSATIONS), "all")
    numbered = {(one.split, one.source_row, one.side, one.turn): place for place, one in enumerate(responses)}
    own = labels[labels["side"] == "on_policy"]
    compared = 0
    for row in own.itertuples():
        place = numbered[row.split, row.source_row, "rejected", row.turn]
        prompt, answer = row.input_ids[: row.response_start].tolist(), row.input_ids[row.response_start :].tolist()
        assert tokenizer.decode(prompt) == responses[place].prompt
        begun = formats.encode(tokenizer, [responses[place].response])[0][:PREFILL]
        ref = Reference(policy, guard, formats, RandomKey("safety4m", 0), NEW)
        expected = [*begun, *no_defense(ref, SearchPrompt(place, formats.policy.prompt(prompt) + begun, [], [])).output_ids]
        if ref.margin > 1e-5:
            compared += 1
            assert answer == expected[: WINDOW - len(prompt)]
        (last,), _ = verdicts(guard, formats, [TokenisedResponse(prompt, answer)], batch_size=1)
        assert np.abs(last - row.rewards).max() < 1e-4
    assert compared >= 3
    rejected = [one for one in responses if (one.split, one.side) == ("train", "rejected")]
    outside = sum(
        len(formats.encode(tokenizer, [one.prompt])[0]) >= WINDOW for one in rejected
    )  # a response outside the window stays there
    assert round(0.5 * len(rejected)) - outside <= len(own) <= round(0.5 * len(rejected))

    card = records.read_json(layout.safety4m(0) / "card.json")
    train = labels[labels["split"] == "train"]
    assert card["on_policy"]["responses"] == len(own) == card["on_policy"]["fraction_of_train_responses"] * len(train)
    assert card["on_policy"]["prefixes"] == own["rewards"].map(len).sum() == card["on_policy"]["rewards"]["count"]
    assert card["responses"]["labelled"] == len(labels)
    turns = dict(card["responses"])
    assert turns.pop("assistant_turns") == sum(turns.values())
    assert f"- {len(own)} answers of the train split" in (layout.safety4m(0) / "README.md").read_text()


def test_nothing_else_changes_and_any_number_of_shards_gives_the_same_bytes(with_policy: Layout) -> None:
    layout = with_policy
    plain = run(config_with(0.0), layout)
    assert "on_policy" not in records.read_json(layout.safety4m(0) / "card.json")
    ours = run(config_with(0.5), layout)
    digest = records.sha256(layout.safety4m(0) / "labels.parquet")
    kept = ours[ours["side"] != "on_policy"].set_index("conversation_id")
    before = plain.set_index("conversation_id").loc[kept.index]
    assert kept["input_ids"].map(list).tolist() == before["input_ids"].map(list).tolist()
    assert set(plain["conversation_id"][plain["split"] == "test"]) <= set(kept.index)
    run(config_with(0.5, shards=2), layout)
    assert records.sha256(layout.safety4m(0) / "labels.parquet") == digest
    folder = build.blocks_folder(jobs.label(config_with(0.5), 0), layout)
    save_guard(layout.model("policy", 0), 400, seed=6)
    assert build.blocks_folder(jobs.label(config_with(0.5), 0), layout) != folder


def responses_of(sides: tuple[str, ...]) -> list[Response]:
    return [Response("test" if row % 5 == 4 else "train", row, side, 0, "q", f"{row}") for row in range(20) for side in sides]


def test_a_larger_share_holds_every_smaller_one_and_only_rejected_answers_are_rewritten() -> None:
    for sides, wanted in ((("chosen", "rejected"), 16), (("chosen",), 16)):
        found: set[str] = set()
        for share in (0.0, 0.25, 0.5, 1.0):
            marked = build.marked(responses_of(sides), share, 3)
            rows = {f"{one.source_row}" for one in marked if one.side == "on_policy"}
            assert len(rows) == share * wanted and found <= rows
            assert all(one.split == "train" for one in marked if one.side == "on_policy")
            assert sum(one.side == "chosen" for one in marked) == (20 if "rejected" in sides else 20 - len(rows))
            found = rows
    both = responses_of(("chosen", "rejected"))
    assert build.marked(both, 0.5, 3) != build.marked(both, 0.5, 4)


def test_a_job_without_them_is_written_as_if_they_could_not_be_asked_for() -> None:
    config = config_with(0.0)
    off, on = jobs.label(config, 0), jobs.label(config_with(0.5), 0)
    assert "on_policy" not in off.line and "seed" not in off.key
    assert on.key["on_policy"] == {"prefill_tokens": PREFILL, "max_new_tokens": NEW} and on.key["seed"] == 0
    assert off.code != on.code
    assert "on_policy_share" not in configuration.as_dict(config)["safety4m"]
    assert workflow.models_labelling(config) == ["guard"]
    assert workflow.models_labelling(config_with(0.1)) == ["guard", "policy"]


def test_what_cannot_be_asked_for_is_refused() -> None:
    for share in (-0.1, 1.5, "half"):
        with pytest.raises(ConfigError, match=r"safety4m\.on_policy_share"):
            config_with(share)  # type: ignore[arg-type]
    values = configuration.as_dict(config_with(0.5))
    values["search"]["prefill_tokens"] = 0
    with pytest.raises(ConfigError, match=r"safety4m\.on_policy_share: search\.prefill_tokens is 0"):
        configuration.parse(values, "test")
