"""Searches by way of transformers' ``generate``: the same tokens, and those of plain generation where the two meet."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import placed
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LogitsProcessor, StoppingCriteria
from transformers.generation import GenerateDecoderOnlyOutput
from tries import tries

import saffron
from saffron.chat import ChatFormat, ChatFormats
from saffron.engine.forward import TrieError
from saffron.methods import discovery
from saffron.methods.base import Block, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey, inverse_cdf

VOCABULARY, EOS, PAD = 24, 3, 0
FORMATS = ChatFormats(
    policy=ChatFormat((1, 20), (21, 22), ()),
    guard=ChatFormat((5, 6), (7,), (4, 1)),
    mrm=ChatFormat((5,), (7, 8), ()),
    safe_id=8,
    unsafe_id=9,
    eos_id=EOS,
)
LIMIT = 7


def make(seed: int, dtype: torch.dtype = torch.float64, vocabulary: int = VOCABULARY, bias: bool = False) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model: Any = LlamaForCausalLM(config)
    if bias:
        head = model.lm_head
        model.lm_head = torch.nn.Linear(16, vocabulary)
        model.lm_head.weight = head.weight
        torch.nn.init.normal_(model.lm_head.bias)
    return model.to(placed.DEVICE, dtype).eval().requires_grad_(False)


@lru_cache(maxsize=1)
def models() -> dict[str, Any]:
    return {"policy": make(0), "guard": make(1), "mrm": make(2, bias=True)}


def prompts(seed: int, lengths: list[int]) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(4, 20, length).tolist() for length in lengths]


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """A batch as a tokenizer that pads on the left gives it."""
    longest = max(map(len, rows))
    ids = [[PAD] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": placed.tensor(ids), "attention_mask": placed.tensor(mask)}


def answers(output: torch.Tensor, inputs: dict[str, torch.Tensor]) -> list[list[int]]:
    """New tokens of each row, the padding after EOS left out."""
    length = inputs["input_ids"].shape[1]
    assert torch.equal(output[:, :length], inputs["input_ids"])
    found = []
    for row in output[:, length:].tolist():
        end = row.index(EOS) + 1 if EOS in row else len(row)
        assert set(row[end:]) <= {PAD}
        found.append(row[:end])
    assert max(map(len, found)) == output.shape[1] - length
    return found


# ----------------------------------------------------------------------------------------- the tokens of search_tokens
@hypothesis_settings(max_examples=tries(8))
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 5),
    top_p=st.sampled_from([0.05, 0.5, 0.8, 1.0]),
    minimum=st.integers(0, 4),
    semantics=st.sampled_from(["paper", "released"]),
    masked=st.booleans(),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
)
def test_saffron_gives_the_tokens_of_search_tokens(seed, width, top_p, minimum, semantics, masked, lengths):
    policy, mrm = models()["policy"], models()["mrm"]
    rows = prompts(seed, lengths)
    unseen = torch.from_numpy(np.random.default_rng(seed).random(VOCABULARY) < 0.4).to(placed.DEVICE) if masked else None
    if unseen is not None:
        unseen[EOS] = False
    inputs = padded(rows)
    output = policy.generate(
        **inputs,
        custom_generate=saffron.generate,
        mrm=mrm,
        unseen=unseen,
        width=width,
        top_p=top_p,
        min_new_tokens=minimum,
        max_new_tokens=LIMIT,
        settings={"semantics": semantics},
    )
    expected = saffron.search_tokens(
        policy,
        mrm,
        rows,
        width=width,
        top_p=top_p,
        min_new_tokens=minimum,
        max_new_tokens=LIMIT,
        eos_token_id=EOS,
        unseen=unseen,
        semantics=semantics,
    )
    assert answers(output, inputs) == expected


@pytest.mark.parametrize("asked", [{"no_repeat_ngram_size": 2}, {"min_p": 0.4}, {"no_repeat_ngram_size": 1, "min_p": 0.1}])
def test_generate_s_own_names_are_the_settings(asked: dict[str, Any]) -> None:
    policy, mrm = models()["policy"], models()["mrm"]
    inputs = padded(prompts(3, [2, 6]))
    common = {"custom_generate": saffron.generate, "mrm": mrm, "width": 3, "max_new_tokens": LIMIT}
    given = answers(policy.generate(**inputs, **common, **asked), inputs)
    assert given == answers(policy.generate(**inputs, **common, settings=asked), inputs)
    assert given != answers(policy.generate(**inputs, **common), inputs)


def test_defaults_are_those_of_search_tokens_whatever_the_checkpoint_recommends() -> None:
    policy, mrm = make(0), models()["mrm"]
    rows = prompts(5, [2, 6])
    expected = saffron.search_tokens(policy, mrm, rows, width=3, max_new_tokens=20, eos_token_id=EOS)
    recommended = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 7,
        "min_new_tokens": 2,
        "repetition_penalty": 1.2,
    }
    for name, value in recommended.items():
        setattr(policy.generation_config, name, value)
    inputs = padded(rows)
    given = {"custom_generate": saffron.generate, "mrm": mrm, "width": 3, "max_new_tokens": 20}
    assert answers(policy.generate(**inputs, **given), inputs) == expected
    assert (
        answers(policy.generate(**inputs, **given | {"top_p": 0.8, "min_new_tokens": 16, "do_sample": False}), inputs) == expected
    )


def test_a_prompt_is_taken_out_of_the_policys_format_and_put_into_the_mrms() -> None:
    policy, mrm = models()["policy"], models()["mrm"]
    asked, begun = prompts(7, [3, 1, 5]), prompts(8, [2, 1, 1])
    rows = [FORMATS.policy.prompt(ids) + start for ids, start in zip(asked, begun, strict=True)]
    inputs = padded(rows)
    given = {"custom_generate": saffron.generate, "mrm": mrm, "formats": FORMATS, "width": 3, "max_new_tokens": LIMIT}
    for prefill in (False, True):
        read = [FORMATS.mrm.prompt(ids) + start * prefill for ids, start in zip(asked, begun, strict=True)]
        expected = saffron.search_tokens(policy, mrm, rows, mrm_prompt_ids=read, width=3, max_new_tokens=LIMIT, eos_token_id=EOS)
        output = policy.generate(**inputs, **given, settings={"reward_reads_prefill": prefill})
        assert answers(output, inputs) == expected


# ------------------------------------------------------------------------------------------------------- every method
@pytest.mark.parametrize("name", discovery.methods())
@pytest.mark.parametrize("seed", [0, 3])
def test_every_method_gives_the_tokens_of_its_search(name: str, seed: int) -> None:
    method = discovery.method(name)
    loaded = models()
    asked = prompts(11, [4, 1, 6])
    rows = [FORMATS.policy.prompt(ids) for ids in asked]
    searched = SearchModels(loaded["policy"], loaded["guard"], FORMATS, loaded["mrm"])
    given = [
        SearchPrompt(row, ids, FORMATS.guard.prompt(inner), FORMATS.mrm.prompt(inner))
        for row, (ids, inner) in enumerate(zip(rows, asked, strict=True))
    ]
    budget = 0 if method.budget is None else 3
    block = Block(searched, given, RandomKey("generate", seed), LIMIT)
    expected = [result.output_ids for result in discovery.search(name)(block, method.settings(), [budget])]
    inputs = padded(rows)
    budgets = {} if method.budget is None else {method.budget: budget}
    output = loaded["policy"].generate(
        **inputs,
        custom_generate=saffron.generate,
        method=name,
        guard=loaded["guard"],
        mrm=loaded["mrm"],
        formats=FORMATS,
        max_new_tokens=LIMIT,
        seed=seed,
        do_sample=method.draws,
        **budgets,
    )
    assert answers(output, inputs) == expected


def test_draws_follow_the_seed_alone() -> None:
    policy, inputs = models()["policy"], padded(prompts(0, [3, 2, 4]))

    def drawn(seed: int) -> torch.Tensor:
        return policy.generate(**inputs, custom_generate=saffron.generate, method="no_defense", max_new_tokens=12, seed=seed)

    torch.manual_seed(0)
    first = drawn(0)
    torch.manual_seed(1)
    assert torch.equal(drawn(0), first)
    assert first.shape != drawn(1).shape or not torch.equal(drawn(1), first)


# ------------------------------------------------------------------------------------------------------ plain generate
@pytest.mark.parametrize("by", ["saffron", "beam_search"])
def test_a_search_of_one_sequence_and_one_candidate_is_greedy_generation(by: str) -> None:
    loaded = models()
    rows = [FORMATS.policy.prompt(ids) for ids in prompts(13, [2, 7, 1, 4])]
    inputs = padded(rows)
    plain = loaded["policy"].generate(**inputs, max_new_tokens=16, do_sample=False)
    lengths = {len(answer) for answer in answers(plain, inputs)}
    assert len(lengths) > 1, "no answer ends early: nothing is padded"
    how: dict[str, Any] = {"saffron": {"top_p": 1e-9, "min_new_tokens": 0}, "beam_search": {"settings": {"children": 1}}}[by]
    output = loaded["policy"].generate(
        **inputs,
        custom_generate=saffron.generate,
        method=by,
        mrm=loaded["mrm"],
        guard=loaded["guard"],
        formats=FORMATS,
        width=1,
        max_new_tokens=16,
        **how,
    )
    assert torch.equal(output, plain)


class Drawn(LogitsProcessor):
    """Leaves of each row's tokens the one that is drawn at temperature 1 with the search's random numbers."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.key = length, RandomKey("generate", seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(scores), device=scores.device)[:, None]
        uniforms = self.key.uniform(rows, torch.zeros_like(rows), input_ids.shape[1] - self.length)
        return torch.full_like(scores, -torch.inf).scatter(1, inverse_cdf(scores[:, None], uniforms), 0.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_defense_is_plain_sampling_at_temperature_1_with_keyed_draws(seed: int) -> None:
    policy, inputs = models()["policy"], padded(prompts(17, [2, 7, 1, 4]))
    plain = policy.generate(**inputs, max_new_tokens=16, logits_processor=[Drawn(inputs["input_ids"].shape[1], seed)])
    given = {"custom_generate": saffron.generate, "method": "no_defense", "max_new_tokens": 16, "do_sample": True}
    assert torch.equal(policy.generate(**inputs, **given, seed=seed), plain)
    best = policy.generate(
        **inputs, **given | {"method": "best_of_n"}, samples=1, seed=seed, guard=models()["guard"], formats=UNFORMATTED
    )
    assert torch.equal(best, plain), "Best-of-1 is one sample"


UNFORMATTED = replace(FORMATS, policy=ChatFormat((), (), ()))


# ------------------------------------------------------------------------------------------------------- what is given
def test_an_output_with_results_and_the_tokens_alone_say_the_same() -> None:
    policy, mrm = models()["policy"], models()["mrm"]
    inputs = padded(prompts(1, [3, 5]))
    given = {"custom_generate": saffron.generate, "mrm": mrm, "width": 2, "max_new_tokens": LIMIT}
    tokens = policy.generate(**inputs, **given)
    output = policy.generate(**inputs, **given, return_dict_in_generate=True)
    assert isinstance(output, GenerateDecoderOnlyOutput) and torch.equal(output["sequences"], tokens)
    assert output.results is not None and [result.output_ids for result in output.results] == answers(tokens, inputs)
    for result in output.results:
        assert result.reward is not None and result.flops_policy > 0 and result.flops_reward > 0 and result.reward_calls > 0


def test_the_bar_counts_steps_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    policy, mrm = models()["policy"], models()["mrm"]
    inputs = padded(prompts(1, [3, 5]))
    given = {"custom_generate": saffron.generate, "mrm": mrm, "width": 2, "max_new_tokens": LIMIT}
    silent = policy.generate(**inputs, **given)
    assert capsys.readouterr().err == ""
    assert torch.equal(policy.generate(**inputs, **given, progress=True), silent)
    assert f"/{LIMIT} [" in (shown := capsys.readouterr().err) and "Saffron-1" in shown


def test_without_a_mask_padding_is_found_as_generate_finds_it_and_limits_count_as_its_do() -> None:
    policy, mrm = models()["policy"], models()["mrm"]
    inputs = padded(prompts(1, [3, 5]))
    given = {"custom_generate": saffron.generate, "mrm": mrm, "width": 2}
    wanted = policy.generate(**inputs, **given, max_new_tokens=LIMIT)
    ids = inputs["input_ids"]
    assert torch.equal(policy.generate(ids, **given, max_new_tokens=LIMIT), wanted)
    assert torch.equal(policy.generate(**inputs, **given, max_length=ids.shape[1] + LIMIT), wanted)
    config = GenerationConfig(max_new_tokens=LIMIT, top_p=0.3, min_new_tokens=1, eos_token_id=[EOS], pad_token_id=PAD)
    by_config = policy.generate(**inputs, **given, generation_config=config)
    assert torch.equal(by_config, policy.generate(**inputs, **given, max_new_tokens=LIMIT, top_p=0.3, min_new_tokens=1))
    assert not torch.equal(by_config, wanted)


def test_of_several_ends_the_one_of_the_chat_formats_is_taken_and_else_none() -> None:
    policy, mrm = make(0), models()["mrm"]
    policy.generation_config.eos_token_id = [2, EOS]
    inputs = padded([FORMATS.policy.prompt([9, 10])])
    given = {"custom_generate": saffron.generate, "mrm": mrm, "width": 2, "max_new_tokens": LIMIT}
    one = policy.generate(**inputs, **given, formats=FORMATS, eos_token_id=EOS)
    assert torch.equal(policy.generate(**inputs, **given, formats=FORMATS), one)
    with pytest.raises(ValueError, match=r"eos_token_id: .*one token that ends an answer, not \[2, 3\]"):
        policy.generate(**inputs, **given)
    with pytest.raises(ValueError, match=r"eos_token_id: .*one token that ends an answer, not \[3, 4\]"):
        policy.generate(**inputs, **given, formats=FORMATS, eos_token_id=[EOS, 4])
    with pytest.raises(ValueError, match="eos_token_id is 4, but answers end with 3 in the chat formats"):
        policy.generate(**inputs, **given, formats=FORMATS, eos_token_id=4)


class Stop(StoppingCriteria):
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.ones(len(input_ids), dtype=torch.bool)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.7}, "temperature=0.7 cannot be honoured by the method saffron"),
        ({"top_k": 50}, "top_k=50 cannot be honoured"),
        ({"num_beams": 4}, "num_beams=4 cannot be honoured"),
        ({"num_return_sequences": 2}, "num_return_sequences=2 cannot be honoured"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"output_scores": True}, "output_scores"),
        ({"stop_strings": ["x"]}, "stop_strings"),
        ({"max_time": 1.0}, "max_time"),
        ({"bad_words_ids": [[1]]}, "bad_words_ids"),
        ({"cache_implementation": "static"}, "cache_implementation"),
        ({"min_length": 3}, "min_length"),
        ({"generation_config": GenerationConfig(max_new_tokens=3, temperature=0.7, do_sample=False)}, "temperature=0.7"),
        ({"generation_config": GenerationConfig(max_new_tokens=3, num_beams=2)}, "num_beams=2"),
        ({"do_sample": True}, "do_sample: the method saffron draws nothing at random"),
        ({"method": "no_defense", "width": None, "do_sample": False}, "do_sample: the method no_defense draws its answers"),
        ({"method": "no_defense", "width": None, "top_p": 0.9}, "top_p=0.9 cannot be honoured by the method no_defense"),
        ({"logits_processor": [Drawn(0, 0)]}, "logits_processor: Drawn"),
        ({"prefix_allowed_tokens_fn": lambda batch, ids: [1]}, "logits_processor: PrefixConstrainedLogitsProcessor"),
        ({"stopping_criteria": [Stop()]}, "stopping_criteria: Stop"),
        ({"position_ids": [[5, 6, 7, 8, 9], [0, 0, 0, 1, 2]]}, "position_ids"),
        ({"attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]}, r"attention_mask\[0\] .*pad on the left"),
        ({"attention_mask": [[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]}, r"attention_mask\[0\] .*pad on the left"),
        ({"settings": {"semantic": "paper"}}, "semantic: .*settings of saffron: .*top_p"),
        ({"settings": {"top_p": 2.0}}, r"top_p: .*less than or equal to 1.*2\.0"),
        ({"settings": {"top_p": 0.8}, "top_p": 0.8}, "top_p is given twice"),
        ({"top_p": 0.0}, "top_p"),
        ({"width": 0}, "width must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"unseen": placed.ones(3, dtype=torch.bool)}, "unseen must have shape"),
        ({"formats": FORMATS}, r"input_ids\[0\] does not begin as the policy's chat format does"),
        ({"method": "best"}, "no search method 'best'; known: .*saffron"),
        ({"eos_token_id": VOCABULARY}, "eos_token_id 24 is outside"),
        ({"wdith": 3}, "wdith"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = padded(prompts(2, [5, 3]))
    usual = {"custom_generate": saffron.generate, "mrm": models()["mrm"], "width": 2}
    if "generation_config" not in changes:
        usual["max_new_tokens"] = LIMIT
    changes = {
        name: placed.tensor(value) if name in ("position_ids", "attention_mask") else value for name, value in changes.items()
    }
    with pytest.raises(ValueError, match=message):
        models()["policy"].generate(**inputs | usual | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": None}, "width: the method saffron needs it"),
        ({"width": 2.5}, "width must be an int"),
        ({"samples": 3}, "samples: not of the method saffron; its budget is width"),
        ({"method": "no_defense"}, "width: not of the method no_defense; it has no budget"),
        ({"method": "best_of_n", "width": None, "samples": 2}, "guard: the method best_of_n reads it"),
        ({"method": "beam_search", "guard": "ours"}, "formats: the guard's verdict"),
        ({"mrm": None}, "mrm: the method saffron reads it"),
        ({"settings": {"scorer": "prm"}}, "guard: the method saffron reads it"),
    ],
)
def test_what_is_missing_or_of_the_wrong_kind_is_named(changes: dict[str, Any], message: str) -> None:
    usual = {"custom_generate": saffron.generate, "mrm": models()["mrm"], "width": 2, "max_new_tokens": LIMIT}
    if changes.get("guard") == "ours":
        changes = changes | {"guard": models()["guard"]}
    with pytest.raises(TypeError, match=message):
        models()["policy"].generate(**padded(prompts(2, [5, 3])) | usual | changes)


def test_alone_it_says_how_it_is_called() -> None:
    with pytest.raises(TypeError, match=r"policy\.generate\(\*\*inputs, custom_generate=saffron\.generate"):
        saffron.generate(models()["policy"], placed.tensor([[1]]))


@pytest.mark.parametrize("turns", [0, 2])
def test_a_prompt_of_no_or_several_turns_is_refused(turns: int) -> None:
    row = [*FORMATS.policy.prefix, 9, *[21, 22, 9] * turns]
    with pytest.raises(ValueError, match=rf"input_ids\[0\] holds .*\[21, 22\], {turns} times"):
        models()["policy"].generate(
            placed.tensor([row]),
            custom_generate=saffron.generate,
            mrm=models()["mrm"],
            formats=FORMATS,
            width=2,
            max_new_tokens=LIMIT,
        )


def test_models_are_checked_as_the_engine_checks_them() -> None:
    inputs = padded(prompts(2, [5, 3]))

    def run(policy: Any, mrm: Any) -> torch.Tensor:
        return policy.generate(**inputs, custom_generate=saffron.generate, mrm=mrm, width=2, max_new_tokens=LIMIT)

    hooked = make(0)
    hooked.model.layers[0].register_forward_hook(lambda *_: None)
    with pytest.raises(TrieError, match="policy: layer 0 has a forward hook"):
        run(hooked, make(1))
    with pytest.raises(TrieError, match=r"mrm: .*call model\.eval\(\) first"):
        run(make(0), make(1).train())
    with pytest.raises(ValueError, match="policy and mrm have vocabularies of 24 and 25"):
        run(make(0), make(1, vocabulary=25))
    windowed = make(1)
    windowed.config.sliding_window = 8
    with pytest.raises(TrieError, match="mrm: sequences of up to 11 tokens exceed the model's sliding window of 8"):
        run(make(0), windowed)
    policy, mrm = make(0, torch.float32), make(1, torch.float64)
    expected = saffron.search_tokens(policy, mrm, prompts(2, [5, 3]), width=2, max_new_tokens=LIMIT, eos_token_id=EOS)
    assert answers(run(policy, mrm), inputs) == expected
