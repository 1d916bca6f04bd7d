"""A real model through the engine: token for token what transformers generates, and what searches without a cache find."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import reference, reference_baselines

from saffron.chat import ChatFormats
from saffron.config import Runtime
from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods import beam_search, best_of_n, deal, discovery, no_defense, rebase
from saffron.methods.base import Block, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey
from saffron.methods.saffron.tokens import search_tokens
from saffron.models.loading import load_lm
from saffron.models.truncated import truncate

THINGS = (
    *("bread", "rain", "a bicycle", "the moon", "soup", "a library", "winter", "tea", "a garden", "music"),
    *("chess", "a river", "honey", "clouds", "a kite", "wool", "the sea", "a clock", "maps", "an owl"),
    *("paper", "salt", "a bridge", "apples", "a candle"),
)
#: Fifty short requests.
PROMPTS = [text.format(thing) for thing in THINGS for text in ("Tell me about {}.", "Write one sentence on {}.")]
GREEDY_TOKENS = 12
SEARCH_TOKENS = 3


def encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def greedy(policy: Any, prompts: list[list[int]], eos: int) -> list[list[int]]:
    """The likeliest token after the likeliest, all prompts on one trie."""
    trie = TokenTrie(policy, prompts)
    found: list[list[int]] = [[] for _ in prompts]
    logits, nodes = trie.root_logits[:, None], torch.full((len(prompts), 1), ROOT)
    alive = torch.ones_like(nodes, dtype=torch.bool)
    for _ in range(GREEDY_TOKENS):
        tokens = logits.argmax(-1)
        for row, token in enumerate(tokens[:, 0].tolist()):
            if alive[row]:
                found[row].append(token)
        alive = alive & (tokens != eos)
        if not alive.any():
            break
        extension = trie.extend(nodes, tokens, alive=alive)
        nodes, logits = extension.nodes, extension.logits
    return found


def test_greedy_tokens_are_those_of_generate(policy: Any, tokenizer: Any, formats: ChatFormats) -> None:
    assert len(set(PROMPTS)) == 50
    prompts = [formats.policy.prompt(ids) for ids in encoded(tokenizer, PROMPTS)]
    expected = []
    for ids in prompts:
        out = policy.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
            max_new_tokens=GREEDY_TOKENS, pad_token_id=formats.eos_id, eos_token_id=formats.eos_id,
        )  # fmt: skip
        expected.append(out[0, len(ids) :].tolist())
    assert greedy(policy, prompts, formats.eos_id) == expected
    assert len({tuple(tokens) for tokens in expected}) > 40  # the model says something else to each


@pytest.fixture(scope="module")
def exact(folder: Path, formats: ChatFormats) -> SearchModels:
    """Policy, and its first layers as guard, in float64; the stock norm computes in float32 whatever its input."""
    policy: Any = load_lm(folder, Runtime(device="cpu", dtype="float64"))
    guard = truncate(policy, 6).eval().requires_grad_(False)
    for model in (policy, guard):
        for name, module in list(model.named_modules()):
            if name.endswith("norm"):
                plain = torch.nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon, dtype=torch.float64)
                plain.weight = module.weight
                parent = model.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], plain)
    return SearchModels(policy=policy, guard=guard, formats=formats)


@pytest.fixture(scope="module")
def prompts(tokenizer: Any, formats: ChatFormats) -> list[SearchPrompt]:
    """Five requests, each with the first words of an answer prefilled."""
    found = []
    for number, ids in enumerate(encoded(tokenizer, PROMPTS[::10])):
        prefill = tokenizer.encode("Here is what I know", add_special_tokens=False)
        found.append(
            SearchPrompt(number, [*formats.policy.prompt(ids), *prefill], formats.guard.prompt(ids), formats.mrm.prompt(ids))
        )
    return found


@pytest.mark.parametrize(
    ("name", "settings", "answer", "budget"),
    [
        ("no_defense", no_defense.Settings(), lambda ref, prompt, budget: reference_baselines.no_defense(ref, prompt), 0),
        ("best_of_n", best_of_n.Settings(), reference_baselines.best_of_n, 3),
        (
            "beam_search",
            beam_search.Settings(children=2),
            lambda ref, prompt, budget: reference_baselines.beam_search(ref, prompt, budget, children=2),
            2,
        ),
        (
            "deal",
            deal.Settings(children=2, lookahead=1, reward_weight=0.5),
            lambda ref, prompt, budget: reference_baselines.deal(ref, prompt, budget, 2, 1, 0.5),
            2,
        ),
        (
            "rebase",
            rebase.Settings(step_tokens=2, balance_temperature=0.1, widths="release", weights="sigmoid"),
            lambda ref, prompt, budget: reference_baselines.rebase(ref, prompt, budget, 2, 0.1, "release", "sigmoid"),
            3,
        ),
    ],
)
def test_baselines_equal_the_reference_in_float64(
    exact: SearchModels, prompts: list[SearchPrompt], name: str, settings: Any, answer: Any, budget: int
) -> None:
    key = RandomKey("made", 0)
    found = discovery.search(name)(Block(exact, prompts, key, SEARCH_TOKENS), settings, [budget])
    for prompt, result in zip(prompts, found, strict=True):
        plain = reference_baselines.Reference(exact.policy, exact.guard, exact.formats, key, SEARCH_TOKENS)
        expected = answer(plain, prompt, budget)
        assert result.output_ids == expected.output_ids
        assert result.reward == (None if expected.reward is None else pytest.approx(expected.reward, abs=1e-8))


def test_saffron_equals_the_reference_in_float64(exact: SearchModels, prompts: list[SearchPrompt]) -> None:
    mrm: Any = copy.copy(exact.guard)
    options: dict[str, Any] = {
        "width": 2,
        "top_p": 0.8,
        "max_new_tokens": SEARCH_TOKENS,
        "min_new_tokens": 1,
        "semantics": "paper",
    }
    outputs = search_tokens(
        exact.policy, mrm, [one.policy_ids for one in prompts], mrm_prompt_ids=[one.mrm_ids for one in prompts],
        eos_token_id=exact.formats.eos_id, unseen=None, **options,
    )  # fmt: skip
    for prompt, output in zip(prompts, outputs, strict=True):
        rewards = reference.multifurcation_rewards(mrm, prompt.mrm_ids)
        plain = reference.saffron_reference(
            exact.policy, rewards, prompt.policy_ids, eos=exact.formats.eos_id, unseen=None, **options
        )
        assert plain.margin > 1e-9
        assert output == plain.tokens


def test_the_dequantised_model_is_the_same_bytes_each_time(folder: Path, tmp_path: Path) -> None:
    from smollm.conftest import MODEL

    from saffron.models import packages

    packages.convert(packages.find(MODEL, "models.hub.policy"), tmp_path, "models.hub.policy")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
