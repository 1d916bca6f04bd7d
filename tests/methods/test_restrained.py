"""What keeps searches likely and free of repetition and noise: each setting against the cache-free references."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.profiling import HostReads
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import reference_baselines as plain
from methods import test_baselines as baselines
from methods.test_saffron import EOS, FORMATS, SEARCH_PROMPTS, VOCAB, model, options, reference
from pydantic import ValidationError
from transformers import NoRepeatNGramLogitsProcessor
from tries import tries

from saffron.config import as_dict
from saffron.methods import beam_search, discovery, frontier, saffron
from saffron.methods.base import Block, SearchModels
from saffron.methods.random import RandomKey
from saffron.methods.repetition import Repeats, without
from saffron.methods.saffron.algorithm import MRMScorer, search
from saffron.methods.saffron.diversity import diverse, similarity
from saffron.methods.saffron.search import record
from saffron.methods.saffron.selection import Best


@settings(max_examples=tries(12))
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 5),
    scale=st.sampled_from([0.3, 2.0, 8.0]),
    limits=st.sampled_from([(3, 0), (6, 2), (9, 9)]),
    semantics=st.sampled_from(["paper", "released"]),
    likelihood_weight=st.sampled_from([0.0, 0.05, 1.0]),
    no_repeat_ngram_size=st.integers(0, 3),
    min_p=st.sampled_from([0.0, 0.3, 1.0]),
    noise_threshold=st.sampled_from([0.0, 0.03, 0.4]),
    diversity_weight=st.sampled_from([0.0, 0.5, 20.0]),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
)
def test_every_restraint_of_saffron_equals_the_reference_in_either_selection(seed, width, scale, limits, lengths, **restraints):
    random = np.random.default_rng(seed)
    policy, mrm = model(seed, scale=scale), model(seed + 1)
    prompts = [random.integers(0, 8, n).tolist() for n in lengths]
    given = options(width=width, max_new_tokens=limits[0], min_new_tokens=limits[1], **restraints)
    wanted = [
        reference.saffron_reference(
            policy,
            reference.multifurcation_rewards(mrm, prompt),
            prompt,
            unseen=None,
            eos=EOS,
            **{name: value for name, value in given.items() if name != "eos_token_id"},
        )
        for prompt in prompts
    ]
    for listed in (True, False):
        scorer = MRMScorer(mrm, prompts, None, width=width, max_new_tokens=limits[0])
        outcome = search(policy, scorer, prompts, listed=listed, **given)
        for output, reward, each in zip(outcome.tokens, outcome.rewards, wanted, strict=True):
            if each.margin > 1e-12:
                assert output == each.tokens
                assert reward == each.reward or reward == pytest.approx(each.reward, abs=1e-9)


@pytest.mark.parametrize(
    "restraints",
    [
        {"likelihood_weight": 0.5},
        {"no_repeat_ngram_size": 2},
        {"min_p": 0.3},
        {"noise_threshold": 0.05},
        {"diversity_weight": 5.0},
    ],
    ids=lambda restraints: next(iter(restraints)),
)
def test_the_prm_s_search_takes_the_same_restraints_and_each_changes_the_answer(restraints):
    policy, guard = model(31, scale=3.0), model(32)
    models = SearchModels(policy, guard, FORMATS)
    chosen = saffron.Settings(scorer="prm", min_new_tokens=6, **restraints)
    results = [result for result, _ in record(Block(models, SEARCH_PROMPTS, RandomKey("guild_a", 0), 6), chosen, 2)]
    usual = chosen.model_copy(update=dict.fromkeys(restraints, 0))
    without_any = [result for result, _ in record(Block(models, SEARCH_PROMPTS, RandomKey("guild_a", 0), 6), usual, 2)]
    assert [result.output_ids for result in results] != [result.output_ids for result in without_any]
    for prompt, result in zip(SEARCH_PROMPTS, results, strict=True):
        verdicts = reference.process_rewards(guard, prompt.guard_ids, [9, 1, 4], FORMATS.safe_id, FORMATS.unsafe_id)
        size = {"width": 2, "top_p": 0.8, "max_new_tokens": 6, "min_new_tokens": 6, "semantics": "paper", "unseen": None}
        found = reference.saffron_reference(policy, verdicts, prompt.policy_ids, eos=EOS, **size, **restraints)
        assert found.margin > 1e-6
        assert result.output_ids == found.tokens
        assert result.reward == pytest.approx(found.reward, abs=1e-5)  # the reward alone, whatever sequences are compared by


@settings(max_examples=tries(10))
@given(
    st.integers(0, 5),
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.1, 2.0]),
    st.integers(0, 3),
    st.integers(0, baselines.VOCABULARY - 1),
    st.integers(1, 9),
)
def test_beam_search_equals_the_reference(model, seed, count, width, children, likelihood_weight, size, eos, limit):
    restraints: Any = {"likelihood_weight": likelihood_weight, "no_repeat_ngram_size": size}
    chosen = beam_search.Settings(children=children, **restraints)
    models, prompts = baselines.models_of(model, eos), baselines.prompts_of(seed, count)
    answer = partial(plain.beam_search, children=children, **restraints)
    for prompt, result in zip(
        prompts, baselines.search("beam_search", models, prompts, chosen, [width], seed, limit), strict=True
    ):
        baselines.check(result, answer(baselines.reference(models, seed, limit), prompt, width), 1e-9)


@settings(max_examples=60)
@given(st.data(), st.integers(1, 4), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 6))
def test_no_ngram_twice_is_what_transformers_means_by_it(data, size, lengths, length):
    token = st.integers(0, 3)
    prompts = [data.draw(st.lists(token, min_size=n + 1, max_size=n + 1)) for n in lengths]
    answers = [[data.draw(st.lists(token, min_size=length, max_size=length)) for _ in range(2)] for _ in prompts]
    logits = torch.zeros(len(prompts), 2, 5)
    repeats = Repeats(prompts, size, torch.device("cpu"))
    ours = without(logits, repeats.after(torch.tensor(answers, dtype=torch.int64).view(len(prompts), 2, length), 5))
    processor = NoRepeatNGramLogitsProcessor(size)
    for prompt, rows, found in zip(prompts, answers, ours, strict=True):
        for row, each in zip(rows, found, strict=True):
            assert torch.equal(each, processor(torch.tensor([[*prompt, *row]]), torch.zeros(1, 5))[0])


def test_where_every_token_would_repeat_one_may():
    repeats = Repeats([[0, 1, 2]], 1, torch.device("cpu"))
    logits = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert torch.equal(without(logits, repeats.after(torch.zeros(1, 1, 0, dtype=torch.int64), 3)), logits)


def test_a_search_that_repeats_itself_no_longer_does():
    """An MRM that wants one token only: without the constraint that is what is written."""
    policy, mrm = model(1, scale=0.1), model(2, scale=0.1, bias=True)
    mrm.lm_head.bias.zero_()
    mrm.lm_head.bias[11] = 100.0
    given = options(width=1, top_p=1.0, max_new_tokens=8, min_new_tokens=8)

    def answer(**restraints: Any) -> list[int]:
        scorer = MRMScorer(mrm, [[1]], None, width=1, max_new_tokens=8)
        [tokens] = search(policy, scorer, [[1]], **given, **restraints).tokens
        return tokens

    assert answer() == [11] * 8
    for size in (1, 2, 3):
        tokens = [1, *answer(no_repeat_ngram_size=size)]
        grams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
        assert len(set(grams)) == len(grams)


def test_a_beam_of_siblings_becomes_one_of_unlike_parents() -> None:
    """Rewards say take both children of the first row; the bonus takes one of each unlike row, none of a row like the first."""
    found = Best(
        row=torch.tensor([[0, 0, 1, 2]]),
        token=torch.tensor([[5, 6, 7, 8]]),
        reward=torch.tensor([[3.0, 2.9, 2.8, 2.7]]),
        score=torch.tensor([[3.0, 2.9, 2.8, 2.7]]),
        valid=torch.ones(1, 4, dtype=torch.bool),
    )
    logits = torch.tensor([[[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, -2.0, 1.0]]])  # the second is the first, only louder
    alike = similarity(logits)
    assert torch.allclose(alike[0], torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double())
    assert diverse(found, alike, 2, 0.0).token.tolist() == [[5, 6]]
    assert diverse(found, alike, 2, 1.0).token.tolist() == [[5, 8]]
    assert diverse(found, alike, 2, 0.5).token.tolist() == [[5, 6]]  # 2.9 + .5 / sqrt(2) against 2.7 + .5
    assert diverse(found, alike, 3, 1.0).token.tolist() == [[5, 6, 8]]


def test_a_heavy_likelihood_makes_the_widest_search_the_most_likely_sequence():
    policy, mrm = model(5, scale=2.0), model(6)
    scorer = MRMScorer(mrm, [[1, 2]], None, width=VOCAB**2, max_new_tokens=2)
    given = options(width=VOCAB**2, top_p=1.0, max_new_tokens=2, min_new_tokens=2)
    [tokens] = search(policy, scorer, [[1, 2]], likelihood_weight=1e6, **given).tokens
    first = torch.log_softmax(reference.last_logits(policy, [1, 2]), -1)
    both = torch.stack([total + torch.log_softmax(reference.last_logits(policy, [1, 2, a]), -1) for a, total in enumerate(first)])
    both[EOS], both[:, EOS] = -torch.inf, -torch.inf
    assert tokens == [int(both.amax(1).argmax()), int(both.amax(0).argmax())]


def test_no_restraint_makes_the_host_read_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontier, "at_hand", lambda device: False)  # as on a GPU
    policy, guard, mrm = model(31, bias=True), model(32), model(33)
    policy.lm_head.bias[EOS] = -1e4
    prompts = [prompt.policy_ids for prompt in SEARCH_PROMPTS]
    restraints: dict[str, Any] = {"likelihood_weight": 0.5, "no_repeat_ngram_size": 2}

    def reads(*, beam: bool, **chosen: Any) -> int:
        with HostReads() as counter:
            if beam:
                block = Block(SearchModels(policy, guard, FORMATS), SEARCH_PROMPTS, RandomKey("guild_a", 0), 9)
                beam_search_of(block, beam_search.Settings(**chosen), [4])
            else:
                scorer = MRMScorer(mrm, prompts, None, width=16, max_new_tokens=9)
                search(policy, scorer, prompts, listed=False, **options(width=16, max_new_tokens=9, **chosen))
        return len(counter.calls)

    beam_search_of = discovery.search("beam_search")
    assert reads(beam=True, **restraints) == reads(beam=True)
    assert reads(beam=False, min_p=0.1, noise_threshold=0.02, diversity_weight=1.0, **restraints) == reads(beam=False)


@pytest.mark.parametrize("which", [saffron.Settings, beam_search.Settings])
@pytest.mark.parametrize("wrong", [{"likelihood_weight": -0.1}, {"no_repeat_ngram_size": -1}, {"no_repeat_ngram_size": 1.5}])
def test_settings_out_of_range_are_refused(which, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        which(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"diversity_weight": -1.0}, {"min_p": 1.1}, {"min_p": -0.1}, {"noise_threshold": 1.0}, {"noise_threshold": "0.1"}]
)
def test_thresholds_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        saffron.Settings(**wrong)


def test_a_restraint_that_is_off_stands_in_no_record() -> None:
    """So that what was searched before there was one is what would be searched now."""
    off = as_dict(saffron.Settings())
    assert not {"likelihood_weight", "no_repeat_ngram_size", "min_p", "noise_threshold", "diversity_weight"} & set(off)
    assert as_dict(saffron.Settings(min_p=0.1)) == off | {"min_p": 0.1}
