"""Saffron-1 on the engine against the cache-free reference, token for token."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import placed
import pytest
import torch
from benchmarks.profiling import HostReads
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM
from tries import tries

from saffron.chat import ChatFormat, ChatFormats
from saffron.engine.forward import TrieError
from saffron.methods import beam_search, best_of_n, deal, discovery, frontier, rebase, saffron
from saffron.methods.base import Block, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey
from saffron.methods.saffron.algorithm import MRMScorer, PRMScorer, search
from saffron.methods.saffron.search import record
from saffron.methods.saffron.selection import best, best_dense, best_listed, nuclei, nucleus
from saffron.methods.saffron.tokens import search_tokens


def _load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", Path(__file__).parent / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    return module


reference = _load_reference()
VOCAB = 24
EOS = 3


def model(seed: int, dtype: torch.dtype = torch.float64, scale: float = 1.0, bias: bool = False, vocab: int = VOCAB) -> Any:
    """A random Llama whose logits have the spread ``scale``."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        initializer_range=0.3,
    )
    llama = LlamaForCausalLM(config)
    head = torch.nn.Linear(16, vocab, bias=bias)
    torch.nn.init.normal_(head.weight, std=scale / 4)
    if bias:
        torch.nn.init.normal_(head.bias, std=2.0)
    llama.lm_head = head
    return llama.to(placed.DEVICE, dtype).eval().requires_grad_(False)


def expected(policy: Any, mrm: Any, prompts: list[list[int]], mrm_prompts: list[list[int]] | None = None, **options: Any) -> list:
    unseen = options.pop("unseen", None)
    return [
        reference.saffron_reference(
            policy,
            reference.multifurcation_rewards(mrm, mrm_prompt),
            prompt,
            eos=options["eos_token_id"],
            unseen=None if unseen is None else unseen.tolist(),
            **{name: value for name, value in options.items() if name != "eos_token_id"},
        )
        for prompt, mrm_prompt in zip(prompts, mrm_prompts or prompts, strict=True)
    ]


def options(**changes: Any) -> dict[str, Any]:
    usual = {"width": 4, "top_p": 0.8, "max_new_tokens": 7, "min_new_tokens": 2, "eos_token_id": EOS, "semantics": "paper"}
    return usual | changes


@settings(max_examples=tries(12))
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 6),
    top_p=st.sampled_from([0.05, 0.3, 0.8, 0.95, 1.0]),
    scale=st.sampled_from([0.3, 2.0, 8.0]),
    limits=st.sampled_from([(1, 0), (3, 0), (6, 2), (9, 9), (4, 6)]),
    semantics=st.sampled_from(["paper", "released"]),
    unseen_share=st.sampled_from([None, 0.5, 1.0]),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_equals_the_reference(seed, width, top_p, scale, limits, semantics, unseen_share, lengths):
    random = np.random.default_rng(seed)
    policy, mrm = model(seed, scale=scale), model(seed + 1, bias=seed % 2 == 0)
    if seed % 3 == 0:
        policy.lm_head.weight[EOS] = policy.lm_head.weight[5]  # an end that ties with another token
    prompts = [random.integers(0, VOCAB, n).tolist() for n in lengths]
    mrm_prompts = [random.integers(0, VOCAB, 1 + n // 2).tolist() for n in lengths]
    unseen = None if unseen_share is None else torch.from_numpy(random.random(VOCAB) < unseen_share).to(placed.DEVICE)
    given = options(
        width=width, top_p=top_p, max_new_tokens=limits[0], min_new_tokens=limits[1], semantics=semantics, unseen=unseen
    )
    outputs = search_tokens(policy, mrm, prompts, mrm_prompt_ids=mrm_prompts, **given)
    references = expected(policy, mrm, prompts, mrm_prompts, **given)
    assert outputs == [each.tokens if each.margin > 1e-12 else output for each, output in zip(references, outputs, strict=True)]


@pytest.mark.parametrize("semantics", ["paper", "released"])
def test_equals_the_reference_in_float32_where_no_decision_is_close(semantics):
    compared = 0
    seeds = range(tries(6))
    for seed in seeds:
        policy, mrm = model(seed, torch.float32, 3.0), model(seed + 50, torch.float32)
        prompts = [[1, 2, 5, 7], [4]]
        given = options(semantics=semantics, width=3)
        outputs = search_tokens(policy, mrm, prompts, **given)
        for output, each in zip(outputs, expected(policy, mrm, prompts, **given), strict=True):
            if each.margin > 1e-5:
                compared += 1
                assert output == each.tokens
    assert compared > 0.8 * len(seeds)


@pytest.mark.parametrize("semantics", ["paper", "released"])
@pytest.mark.parametrize("at", range(1, 7))
def test_end_at_every_position(semantics, at):
    """An end that is rewarded most, allowed from one position on."""
    policy, mrm = model(1, scale=0.2), model(2, bias=True)
    mrm.lm_head.bias[EOS] = 40.0
    for width in (1, 4):
        given = options(width=width, min_new_tokens=at - 1, max_new_tokens=6, top_p=1.0, semantics=semantics)
        outputs = search_tokens(policy, mrm, [[1], [2, 4, 6]], **given)
        assert outputs == [each.tokens for each in expected(policy, mrm, [[1], [2, 4, 6]], **given)]
        assert all(output.index(EOS) == len(output) - 1 >= at - 1 for output in outputs)
        assert width > 1 or [len(output) for output in outputs] == [at, at]


@pytest.mark.parametrize("semantics", ["paper", "released"])
def test_nuclei_of_one_token_follow_the_greedy_path(semantics):
    policy, mrm = model(3), model(4)
    prompt = [5, 6]
    greedy: list[int] = []
    for step in range(5):
        logits = reference.last_logits(policy, prompt + greedy)
        if step < 5:
            logits[EOS] = -torch.inf
        greedy.append(int(logits.argmax()))
    given = options(top_p=1e-9, max_new_tokens=5, min_new_tokens=5, semantics=semantics)
    assert search_tokens(policy, mrm, [prompt], **given) == [greedy]


@pytest.mark.parametrize("semantics", ["paper", "released"])
def test_all_rewards_tie_when_every_token_is_unseen(semantics):
    """The filler is chosen in beam order, then by probability: the answer is the greedy continuation."""
    policy, mrm = model(5), model(6)
    unseen = placed.ones(VOCAB, dtype=torch.bool)
    given = options(width=5, unseen=unseen, min_new_tokens=7, semantics=semantics)
    [output] = search_tokens(policy, mrm, [[1, 2]], **given)
    assert output == expected(policy, mrm, [[1, 2]], **given)[0].tokens
    greedy: list[int] = []
    for _ in range(7):
        logits = reference.last_logits(policy, [1, 2, *greedy])
        logits[EOS] = -torch.inf
        greedy.append(int(logits.argmax()))
    assert output == greedy


def test_ties_of_probability_and_reward_are_decided_by_token_id():
    policy, mrm = model(7), model(8)
    policy.lm_head.weight.zero_()
    mrm.lm_head.weight.zero_()
    given = options(width=3, top_p=0.5, max_new_tokens=3, min_new_tokens=0)
    assert (
        search_tokens(policy, mrm, [[1]], **given)
        == [[0, 0, 0]]
        == [each.tokens for each in expected(policy, mrm, [[1]], **given)]
    )
    given = options(width=2, top_p=0.5, max_new_tokens=3, min_new_tokens=0, eos_token_id=0)
    assert search_tokens(policy, mrm, [[1]], **given) == [[0]]


def test_the_bias_of_the_unembedding_is_used():
    policy, mrm = model(9, scale=0.1), model(10, bias=True)
    mrm.lm_head.bias.zero_()
    mrm.lm_head.bias[11] = 1000.0
    assert search_tokens(policy, mrm, [[1]], **options(width=1, top_p=1.0, max_new_tokens=3)) == [[11, 11, 11]]


def test_released_prefers_any_finished_sequence_and_paper_does_not():
    policy, mrm = model(11, scale=0.1), model(12, scale=0.1, bias=True)
    mrm.lm_head.bias.zero_()
    mrm.lm_head.bias[EOS] = -2.0
    given = options(width=VOCAB, top_p=1.0, min_new_tokens=0, max_new_tokens=4)
    assert EOS in search_tokens(policy, mrm, [[1]], **given | {"semantics": "released"})[0]
    assert EOS not in search_tokens(policy, mrm, [[1]], **given)[0]


def test_prompts_of_one_batch_do_not_influence_each_other():
    policy, mrm = model(13, scale=4.0), model(14)
    policy.lm_head.weight[EOS] *= 2
    prompts = [[1], [2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12]]
    given = options(max_new_tokens=12, min_new_tokens=1, top_p=0.9)
    alone = [search_tokens(policy, mrm, [prompt], **given)[0] for prompt in prompts]
    assert len({len(output) for output in alone}) > 1
    assert search_tokens(policy, mrm, prompts, **given) == alone


FORMATS = ChatFormats(
    policy=ChatFormat((1,), (2,), ()),
    guard=ChatFormat((5, 6), (7,), (9, 1, 4)),
    mrm=ChatFormat((5,), (7,), ()),
    safe_id=8,
    unsafe_id=9,
    eos_id=EOS,
)
SEARCH_PROMPTS = [SearchPrompt(0, [1, 10, 2], [5, 6, 10, 7], [5, 10, 7]), SearchPrompt(1, [1, 2], [5, 6, 11, 12, 7], [5, 7])]


@pytest.mark.parametrize("scorer", ["mrm", "prm"])
@pytest.mark.parametrize("semantics", ["paper", "released"])
@pytest.mark.parametrize("seed", range(4))
def test_selection_on_the_device_equals_selection_on_the_host(scorer, semantics, seed):
    policy, reward = model(seed, scale=3.0), model(seed + 20)
    policy.lm_head.weight[EOS] *= 2
    unseen = placed.arange(VOCAB) % 3 == 0
    prompts = [[1, 2], [3], [4, 5, 6]]
    given = options(max_new_tokens=10, semantics=semantics)

    def found(listed: bool) -> tuple[Any, ...]:
        mine = PRMScorer(SearchModels(policy, reward, FORMATS), prompts)
        if scorer == "mrm":
            mine = MRMScorer(reward, prompts, unseen, width=4, max_new_tokens=10)
        outcome = search(policy, mine, prompts, listed=listed, **given)
        ledgers = [ledger.nominal.tolist() for ledger in (outcome.ledger, mine.ledger)]
        return outcome.tokens, outcome.rewards, outcome.finished, ledgers, mine.calls.tolist()

    assert found(True) == found(False)


@pytest.mark.parametrize("scorer", ["mrm", "prm"])
@pytest.mark.parametrize("semantics", ["paper", "released"])
@pytest.mark.parametrize("width", [1, 4])
def test_either_scorer_and_the_recorded_tree_equal_the_reference(scorer, semantics, width):
    """Every beam, candidate, probability and reward of every step, beyond a compaction, with sequences that end early."""
    policy, guard, mrm = model(31, scale=3.0), model(32), model(33, bias=True)
    policy.lm_head.weight[EOS] *= 2
    unseen = placed.arange(VOCAB) % 3 == 0
    models = SearchModels(policy, guard, FORMATS, mrm, unseen)
    # EOS is among the unseen, and stays so.
    chosen = saffron.Settings(scorer=scorer, semantics=semantics, min_new_tokens=1, top_p=0.6, eos_seen=False)
    recorded = record(Block(models, SEARCH_PROMPTS, RandomKey("guild_a", 0), 9), chosen, width)
    for prompt, (result, tree) in zip(SEARCH_PROMPTS, recorded, strict=True):
        verdicts = reference.process_rewards(guard, prompt.guard_ids, [9, 1, 4], FORMATS.safe_id, FORMATS.unsafe_id)
        rewards = verdicts if scorer == "prm" else reference.multifurcation_rewards(mrm, prompt.mrm_ids)
        found = reference.saffron_reference(
            policy,
            rewards,
            prompt.policy_ids,
            width=width,
            top_p=0.6,
            max_new_tokens=9,
            min_new_tokens=1,
            eos=EOS,
            unseen=unseen.tolist() if scorer == "mrm" else None,
            semantics=semantics,
        )
        assert found.margin > 1e-6
        assert result.output_ids == found.tokens
        paths = {-1: ()}
        for node, (parent, token) in enumerate(tree.nodes):
            paths[node] = (*paths[parent], token)
        assert len(tree.steps) == len(found.steps)
        for ours, theirs in zip(tree.steps, found.steps, strict=True):
            assert [paths[node] for node in ours.beam] == theirs.beam
            listed = [(paths[c.parent], c.token, c.node is not None) for c in ours.candidates]
            assert listed == [(parent, token, kept) for parent, token, _, _, kept in theirs.candidates]
            assert [c.probability for c in ours.candidates] == pytest.approx([c[2] for c in theirs.candidates], abs=1e-6)
            assert [c.reward for c in ours.candidates] == pytest.approx([c[3] for c in theirs.candidates], abs=1e-5)
            assert all(paths[c.node] == (*paths[c.parent], c.token) for c in ours.candidates if c.node is not None)
        assert result.reward_calls == len(
            {c[:2] for step in found.steps for c in step.candidates}
            if scorer == "prm"
            else {c[0] for step in found.steps for c in step.candidates}
        )


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("best_of_n", best_of_n.Settings()),
        ("beam_search", beam_search.Settings(children=2)),
        ("deal", deal.Settings(children=2, lookahead=0, reward_weight=0.5)),
        ("deal", deal.Settings(children=2, lookahead=2, reward_weight=0.5)),
        ("rebase", rebase.Settings(step_tokens=2, balance_temperature=0.1, widths="release", weights="sigmoid")),
        ("saffron", None),
    ],
)
def test_the_host_reads_once_per_compaction_and_not_in_between(name, chosen, monkeypatch):
    monkeypatch.setattr(frontier, "at_hand", lambda device: False)  # as on a GPU
    policy, guard, mrm = model(31, bias=True), model(32), model(33)
    policy.lm_head.bias[EOS] = -1e4
    models = SearchModels(policy, guard, FORMATS)
    prompts = [prompt.policy_ids for prompt in SEARCH_PROMPTS]

    def reads(limit: int) -> int:
        with HostReads() as counter:
            if chosen is None:
                scorer = MRMScorer(mrm, prompts, None, width=16, max_new_tokens=limit)
                search(policy, scorer, prompts, listed=False, **options(width=16, max_new_tokens=limit))
            else:
                discovery.search(name)(Block(models, SEARCH_PROMPTS, RandomKey("guild_a", 0), limit), chosen, [4])
        return len(counter.calls)

    assert reads(7) == reads(6) == reads(14) - 2


def test_a_prm_that_scores_every_candidate_reads_once_per_step_and_once_per_compaction():
    policy, guard = model(31, bias=True), model(32)
    policy.lm_head.bias[EOS] = -1e4
    models = SearchModels(policy, guard, FORMATS)
    prompts = [prompt.policy_ids for prompt in SEARCH_PROMPTS]

    def reads(limit: int) -> int:
        with HostReads() as counter:
            scorer = PRMScorer(models, [prompt.guard_ids for prompt in SEARCH_PROMPTS])
            search(policy, scorer, prompts, listed=False, **options(width=16, max_new_tokens=limit))
        return len(counter.calls)

    assert reads(5) == reads(2) + 3
    assert reads(14) == reads(2) + 12 + 3  # compactions after steps 4, 8 and 12


@settings(max_examples=tries(8))
@given(
    seed=st.integers(0, 1000),
    width=st.sampled_from([1, 3, 30]),
    share=st.sampled_from([0.5, 0.9, 1.0]),
    semantics=st.sampled_from(["paper", "released"]),
)
def test_a_bias_of_minus_infinity_ranks_last_in_either_selection(seed, width, share, semantics):
    policy, mrm = model(seed, scale=0.5), model(seed + 1, bias=True)
    mrm.lm_head.bias[torch.rand(VOCAB, generator=torch.Generator().manual_seed(seed)) < share] = -torch.inf
    prompts = [[1, 2], [5]]
    given = options(width=width, min_new_tokens=0, max_new_tokens=6, semantics=semantics)
    chosen = [each.tokens for each in expected(policy, mrm, prompts, **given)]
    for listed in (True, False):
        scorer = MRMScorer(mrm, prompts, None, width=width, max_new_tokens=6)
        assert search(policy, scorer, prompts, listed=listed, **given).tokens == chosen


@pytest.mark.parametrize("scorer", ["mrm", "prm"])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("limit", [1, 9])
def test_nan_is_an_error_of_the_model_it_comes_from(scorer, listed, limit):
    prompts = [[1, 2], [5]]
    for broken, words in ((0, "policy's probabilities"), (1, "reward model's rewards")):
        models = [model(1, bias=True), model(2, bias=True)]
        models[broken].lm_head.bias[:] = torch.nan
        policy, reward = models
        mine = PRMScorer(SearchModels(policy, reward, FORMATS), prompts)
        if scorer == "mrm":
            mine = MRMScorer(reward, prompts, None, width=4, max_new_tokens=limit)
        with pytest.raises(ValueError, match=words):
            search(policy, mine, prompts, listed=listed, **options(max_new_tokens=limit))


@settings(max_examples=tries(80))
@given(
    data=st.data(),
    batch=st.integers(1, 3),
    rows=st.integers(1, 4),
    count=st.integers(1, 9),
    top_p=st.sampled_from([0.01, 0.5, 0.75, 0.8, 1.0]),
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_both_selections_agree_under_ties(dtype, data, batch, rows, count, top_p):
    """Coarse probabilities and rewards, so that ties abound."""
    size = (batch, rows, 8)
    weights = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=batch * rows * 8, max_size=batch * rows * 8))).view(
        size
    )
    weights[..., 0] += 1
    probs = weights.double() / weights.sum(-1, keepdim=True)
    drawn = data.draw(
        st.lists(st.sampled_from([-torch.inf, -1, -0.0, 0.0, 1, torch.inf]), min_size=batch * rows * 8, max_size=batch * rows * 8)
    )
    rewards = torch.tensor(drawn).view(size).to(dtype)
    alive = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch * rows, max_size=batch * rows))).view(batch, rows)
    found = nuclei(probs, alive, top_p)
    dense = best_dense(found, rewards, count)
    row, token, there = found.first(max(1, int(found.inside.sum((1, 2)).amax())))
    listed = best_listed(row, token, there, rewards[torch.arange(batch)[:, None], row, token], count)
    assert torch.equal(listed.valid, dense.valid)
    assert torch.equal(torch.where(there, row, 0).flatten()[listed.index[dense.valid]], dense.row[dense.valid])
    candidates = nucleus(probs, alive, top_p)
    values = rewards.numpy()[candidates.prompt, candidates.row, candidates.token]
    if not len(values):
        assert not dense.valid.any()
        return
    sparse = best(candidates, values, batch, count)
    assert torch.equal(dense.valid, sparse.valid)
    for name in ("row", "token", "reward"):
        ours, theirs, chosen = (getattr(each, name)[dense.valid] for each in (dense, sparse, listed))
        assert torch.equal(ours, theirs) and torch.equal(chosen, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width"),
        ({"top_p": 0.0}, "top_p"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"eos_token_id": VOCAB}, "eos_token_id"),
        ({"unseen": placed.ones(3, dtype=torch.bool)}, "unseen"),
        ({"semantics": "other"}, "semantics"),
        ({"mrm_prompt_ids": []}, "mrm_prompt_ids"),
        ({"mrm_prompt_ids": [[1, VOCAB]]}, r"mrm_prompt_ids\[0\] holds 24"),
        ({"prompt_ids": [[1], [-1]]}, r"prompt_ids\[1\] holds -1"),
        ({"prompt_ids": [[1], []]}, r"prompt_ids\[1\] is empty"),
        ({"min_new_tokens": -1}, "min_new_tokens"),
    ],
)
def test_arguments_out_of_range_are_refused(changes, message):
    given = {"prompt_ids": [[1]], **options(**changes)}
    with pytest.raises(ValueError, match=message):
        search_tokens(model(0), model(1), **given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_ids": placed.tensor([[1, 2]])}, "prompt_ids must be a list of lists .*Tensor"),
        ({"prompt_ids": [1, 2]}, r"prompt_ids\[0\] must be a list"),
        ({"prompt_ids": "ab"}, "prompt_ids"),
        ({"prompt_ids": ["ab"]}, r"prompt_ids\[0\]"),
        ({"prompt_ids": [[1.0]]}, r"prompt_ids\[0\] holds 1.0"),
        ({"mrm_prompt_ids": [[True]]}, r"mrm_prompt_ids\[0\] holds True"),
        ({"eos_token_id": None}, "eos_token_id"),
        ({"eos_token_id": [3, 4]}, "eos_token_id"),
        ({"width": 2.5}, "width"),
        ({"width": True}, "width"),
        ({"max_new_tokens": 2.0}, "max_new_tokens"),
        ({"min_new_tokens": "2"}, "min_new_tokens"),
        ({"top_p": "0.8"}, "top_p"),
        ({"unseen": placed.ones(VOCAB, dtype=torch.int64)}, r"unseen .*int64.* torch.as_tensor\(unseen, dtype=torch.bool\)"),
        ({"unseen": np.ones(VOCAB, dtype=bool)}, "unseen .*ndarray.* torch.as_tensor"),
        ({"unseen": [True] * VOCAB}, "unseen .*list.* torch.as_tensor"),
        ({"mrm": None}, "mrm must be a loaded transformers model"),
        ({"policy": "a/model"}, "policy must be a loaded transformers model"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused(changes, message):
    given = {"policy": model(0), "mrm": model(1), "prompt_ids": [[1]], **options(**changes)}
    with pytest.raises(TypeError, match=message):
        search_tokens(**given)


@pytest.mark.parametrize("which", ["policy", "mrm"])
def test_a_model_that_cannot_be_driven_to_the_end_is_refused_before_any_forward(which):
    def refuse(*_: Any) -> None:
        raise AssertionError("a forward")

    models = {"policy": model(0), "mrm": model(1)}
    for each in models.values():
        each.model.embed_tokens.register_forward_pre_hook(refuse)
    given = {"prompt_ids": [[1], [1, 2]], **models, **options(max_new_tokens=4)}
    models[which].config.sliding_window = 4
    with pytest.raises(TrieError, match=f"{which}: sequences of up to 5 tokens .*window of 4"):
        search_tokens(**given)
    models[which].config.sliding_window = 5
    with pytest.raises(AssertionError, match="a forward"):
        search_tokens(**given)
    models[which].train()
    with pytest.raises(TrieError, match=f"{which}: .*eval"):
        search_tokens(**given)


def test_policy_and_mrm_may_be_of_different_dtypes():
    policy, mrm = model(0, torch.float32), model(1, torch.float64)
    [output] = search_tokens(policy, mrm, [[1, 2]], **options())
    [reference_] = expected(policy, mrm, [[1, 2]], **options())
    assert reference_.margin > 1e-5 and output == reference_.tokens


def test_vocabularies_must_agree_and_no_prompts_have_no_continuations():
    with pytest.raises(ValueError, match="vocabular"):
        search_tokens(model(0), model(1, vocab=VOCAB + 1), [[1]], **options())
    assert search_tokens(model(0), model(1), [], **options()) == []
    assert search_tokens(model(0), model(1), [[1]], **options(max_new_tokens=0)) == [[]]
