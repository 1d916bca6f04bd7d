"""Ensembles of MRMs against references without tries: in Saffron-1's search, and of Best-of-N's samples."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import placed
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from methods import reference
from methods.small import VOCABULARY, block_of, model, models_of, plain_of, predicted, prompts_of
from pydantic import ValidationError

from saffron import config as configs
from saffron import jobs, workflow
from saffron.engine.compute import ModelShape
from saffron.methods import best_of_n_mrm, discovery, saffron, saffron_ensemble
from saffron.methods.base import MethodError, Size
from saffron.methods.multifurcation import aggregated
from saffron.methods.saffron import algorithm
from saffron.methods.saffron.algorithm import search
from saffron.methods.saffron.selection import UNSEEN_REWARD
from saffron.methods.saffron_ensemble.search import EnsembleScorer

AGGREGATIONS = ["mean", "worst", "uncertainty"]


def one_of_many(values: list[float], aggregation: str, weight: float) -> float:
    """Word for word as the paper has it."""
    if aggregation == "worst":
        return min(values)
    mean = sum(values) / len(values)
    return mean - weight * statistics.pvariance(values) if aggregation == "uncertainty" else mean


def ensemble(seed: int, eos: int, count: int, unseen: torch.Tensor | None = None) -> Any:
    others = tuple(model(seed + 3000 + member) for member in range(count - 1))
    return models_of(seed, eos, others=others, unseen=None if unseen is None else unseen.to(placed.DEVICE))


def named(count: int) -> list[str]:
    return [f"draw{member}" for member in range(1, count)]


@hypothesis_settings(max_examples=8)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 3),
    aggregation=st.sampled_from(AGGREGATIONS),
    weight=st.sampled_from([0.0, 0.5, 3.0]),
    width=st.integers(1, 3),
    listed=st.booleans(),
)
def test_saffron_by_an_ensemble_equals_the_reference(
    seed: int, count: int, aggregation: Any, weight: float, width: int, listed: bool
) -> None:
    eos, limit = seed % VOCABULARY, 4
    unseen = torch.arange(VOCABULARY) % 4 == 0
    unseen[eos] = False
    models, prompts = ensemble(seed % 7, eos, count, unseen), prompts_of(seed % 1000, 2)
    settings = saffron_ensemble.Settings(
        others=named(count), aggregation=aggregation, variance_weight=weight, top_p=0.7, min_new_tokens=1
    )
    mrms = [models.mrm, *models.others]
    read = [prompt.mrm_ids for prompt in prompts]
    scorer = EnsembleScorer(settings, mrms, read, models.unseen, width=width, max_new_tokens=limit)
    given = {"width": width, "top_p": 0.7, "max_new_tokens": limit, "min_new_tokens": 1}
    asked = [prompt.policy_ids for prompt in prompts]
    outcome = search(models.policy, scorer, asked, eos_token_id=eos, listed=listed, **given)
    results = discovery.search("saffron_ensemble")(block_of(models, prompts, 0, limit), settings, [width])
    for place, prompt in enumerate(prompts):

        def rewards(tokens: list[int], ids: list[int] = prompt.mrm_ids) -> list[float]:
            each = [reference.last_logits(mrm, [*ids, *tokens]).tolist() for mrm in mrms]
            return [one_of_many(list(values), aggregation, weight) for values in zip(*each, strict=True)]

        found = reference.saffron_reference(
            models.policy, rewards, prompt.policy_ids, eos=eos, unseen=unseen.tolist(), semantics="paper", **given
        )
        if found.margin > 1e-6:
            assert outcome.tokens[place] == results[place].output_ids == found.tokens
            assert results[place].reward == pytest.approx(found.reward, abs=1e-5)


@pytest.mark.parametrize("listed", [True, False])
def test_one_member_is_saffron_under_its_restraints_too(listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithm, "at_hand", lambda device: listed)
    block = block_of(models_of(1, 3), prompts_of(2, 4), 0, 8)
    given = {"min_new_tokens": 1, "likelihood_weight": 0.3, "no_repeat_ngram_size": 2, "diversity_weight": 1.0, "min_p": 0.05}
    alone = discovery.search("saffron")(block, saffron.Settings(**given), [3])
    assert discovery.search("saffron_ensemble")(block, saffron_ensemble.Settings(**given), [3]) == alone
    assert [one.output_ids for one in alone] != [
        one.output_ids for one in discovery.search("saffron")(block, saffron.Settings(min_new_tokens=1), [3])
    ]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_one_member_is_saffron_and_equal_members_cost_as_often(aggregation: Any) -> None:
    models, prompts = models_of(1, 3), prompts_of(2, 4)
    block = block_of(models, prompts, 0, 8)
    alone = discovery.search("saffron")(block, saffron.Settings(min_new_tokens=1), [3])
    given = {"aggregation": aggregation, "min_new_tokens": 1}
    one = discovery.search("saffron_ensemble")(block, saffron_ensemble.Settings(**given), [3])
    assert one == alone
    three = replace(models, others=(models.mrm, models.mrm))
    settings = saffron_ensemble.Settings(others=named(3), **given)
    thrice = discovery.search("saffron_ensemble")(block_of(three, prompts, 0, 8), settings, [3])
    for a, b in zip(alone, thrice, strict=True):
        assert (b.output_ids, b.flops_policy) == (a.output_ids, a.flops_policy)
        assert b.flops_reward == 3 * a.flops_reward and b.reward_calls == 3 * a.reward_calls
        assert b.flops_executed_reward == 3 * a.flops_executed_reward


@hypothesis_settings(max_examples=8)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 3),
    aggregation=st.sampled_from(AGGREGATIONS),
    limit=st.integers(1, 4),
    budget=st.integers(1, 4),
)
def test_best_of_n_by_mrms_equals_the_reference_and_pays_each_token_once(
    seed: int, count: int, aggregation: Any, limit: int, budget: int
) -> None:
    eos = seed % VOCABULARY
    unseen = torch.arange(VOCABULARY) % 5 == 1
    models, prompts = ensemble(seed % 7, eos, count, unseen.clone()), prompts_of(seed % 1000, 2)
    unseen[eos] = False
    settings = best_of_n_mrm.Settings(others=named(count), aggregation=aggregation, variance_weight=0.7)
    budgets = sorted({1, budget})
    results = iter(discovery.search("best_of_n_mrm")(block_of(models, prompts, seed, limit), settings, budgets))
    mrms = [models.mrm, *models.others]
    shape = ModelShape.from_config(models.mrm.config)
    for samples in budgets:
        for prompt in prompts:
            result, drawn, rewards = next(results), [], []
            for index in range(samples):
                ref = plain_of(models, seed, limit)
                tokens: tuple[int, ...] = ()
                while not ref.complete(tokens):
                    tokens += (ref.sample(prompt, tokens, index),)
                values = [predicted(mrm, prompt, list(tokens)) for mrm in mrms]
                drawn.append(tokens)
                rewards.append(UNSEEN_REWARD if unseen[tokens[-1]] else one_of_many(values, aggregation, 0.7))
            best = max(range(samples), key=lambda index: rewards[index])
            assert result.reward == pytest.approx(rewards[best], abs=1e-6)
            assert (tuple(result.output_ids), result.budget) == (drawn[best], samples) or sorted(rewards)[-2] > rewards[
                best
            ] - 1e-6
            start = len(prompt.mrm_ids)
            prefixes = {tokens[:length] for tokens in drawn for length in range(1, len(tokens))}
            read = shape.chain(0, start) + sum(shape.chain(start + len(prefix) - 1, 1) for prefix in prefixes)
            assert result.flops_reward == count * read
            assert result.reward_calls == count * len({tokens[:-1] for tokens in drawn})


def test_the_samples_are_those_of_best_of_n() -> None:
    models, prompts = models_of(3, 4), prompts_of(5, 3)
    block = block_of(models, prompts, 1, 6)
    ours = discovery.search("best_of_n_mrm")(block, best_of_n_mrm.Settings(), [1, 4])
    theirs = discovery.search("best_of_n")(block, discovery.method("best_of_n").settings(), [1, 4])
    assert [one.output_ids for one in ours[:3]] == [one.output_ids for one in theirs[:3]]
    assert [one.flops_policy for one in ours] == [one.flops_policy for one in theirs]


def test_a_bias_of_minus_infinity_stays_one() -> None:
    rewards = torch.tensor([[1.0, -torch.inf], [2.0, -torch.inf]])
    for aggregation, expected in zip(AGGREGATIONS, (1.5, 1.0, 1.25), strict=True):
        settings = saffron_ensemble.Settings(others=["other"], aggregation=aggregation, variance_weight=1.0)
        assert aggregated(rewards, settings).tolist() == [expected, -torch.inf]


def test_as_many_as_are_named_have_to_be_loaded() -> None:
    for name in ("saffron_ensemble", "best_of_n_mrm"):
        settings = discovery.method(name).settings(others=["other"])  # type: ignore[call-arg]
        with pytest.raises(MethodError, match="an ensemble of 2 MRMs, but 1 are loaded"):
            discovery.search(name)(block_of(models_of(0, 3), prompts_of(0, 1), 0, 3), settings, [2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"others": ["default"]}, r"MRMs \['default'\] stand twice in the ensemble"),
        ({"others": ["one", "one"]}, r"MRMs \['one'\] stand twice"),
        ({"aggregation": "median"}, "aggregation"),
        ({"variance_weight": -1.0}, "variance_weight"),
        ({"scorer": "prm"}, "scorer: an ensemble is one of MRMs"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        saffron_ensemble.Settings(**given)


def test_the_planned_reward_cost_is_that_of_every_member() -> None:
    shape = ModelShape.from_config(model(0).config)
    size = Size(2, 5, None, policy_prompt=7, guard_prompt=6, mrm_prompt=4, guard_suffix=4, policy=shape, guard=shape)
    for name in ("saffron_ensemble", "best_of_n_mrm"):
        method = discovery.method(name)
        one, three = (method.cost(method.settings(others=named(count)), size) for count in (1, 3))  # type: ignore[call-arg]
        assert three == (one[0], 3 * one[1])
        (_, measured), (_, once) = (
            method.cost(method.settings(others=named(count)), replace(size, calls=10.0 * count))  # type: ignore[call-arg]
            for count in (3, 1)
        )
        assert measured == 3 * once


# ---------------------------------------------------------------------------------------------------------- in a config
def config_of(runs: list[dict[str, Any]], variants: dict[str, Any]) -> configs.Config:
    values = yaml.safe_load((Path(__file__).parents[2] / "config/sandbox.yaml").read_text())
    values["search"]["experiments"]["scaling"]["runs"] += runs
    values["mrm"]["variants"] |= variants
    return configs.parse(values, "test")


RUN = {"method": "saffron_ensemble", "budgets": [2], "settings": {"others": ["draw1", "draw2"]}}
VARIANTS = {"draw1": {"draw": 1}, "draw2": {"draw": 2}}


def test_members_are_trained_from_their_own_draws_and_a_run_reads_them_all() -> None:
    config = config_of([RUN], VARIANTS)
    assert [jobs.train(config, 0, name).mrm.draw for name in ("default", "draw1", "draw2")] == [config.mrm.draw, 1, 2]
    assert set(workflow.variants(config)) >= {"default", "draw1", "draw2"}
    job = jobs.search(config, 0, "scaling", "saffron_ensemble-default")
    assert (job.mrm, job.mrms) == ("default", ["default", "draw1", "draw2"])
    assert job.others == {name: config.mrm.variants[name] for name in VARIANTS}
    other = config_of([RUN], {**VARIANTS, "draw2": {"draw": 7}})
    assert jobs.search(other, 0, "scaling", "saffron_ensemble-default").key != job.key
    with pytest.raises(configs.ConfigError, match=r"saffron_ensemble-default uses the MRM draw2, which mrm.variants does not"):
        config_of([RUN], {"draw1": {}})


def test_jobs_of_other_methods_and_variants_are_written_as_if_there_were_no_ensembles() -> None:
    config = config_of([], {})
    assert '"others"' not in jobs.search(config, 0, "scaling", "saffron-default").line
    assert '"draw": null' not in jobs.train(config, 0).line
    assert "draw" not in configs.as_dict(config)["mrm"]["variants"]["default"]
