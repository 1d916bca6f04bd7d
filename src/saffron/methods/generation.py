"""Every search method the way transformers generates::

    policy.generate(**inputs, custom_generate=saffron.generate, mrm=mrm, width=32, max_new_tokens=32)

``generate`` prepares its inputs as always (masks, padding, limits) and then calls :func:`generate` in place of its own decoding
loop. What a search cannot honour is refused by name, never ignored. Three arguments of ``generate`` do not reach such a
function at all: ``streamer``, ``tokenizer`` and ``assistant_model``. A search would have no use for a streamer: which tokens it
answers with is open until it ends, and what was streamed could not be taken back; ``progress`` shows its steps instead.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import GenerateDecoderOnlyOutput

from saffron.chat import ChatFormat, ChatFormats
from saffron.methods import discovery
from saffron.methods.base import Block, Method, Result, Rewarded, SearchModels, SearchPrompt
from saffron.methods.checks import check_models, check_numbers, check_prompts, check_unseen, check_window
from saffron.methods.random import RandomKey

if TYPE_CHECKING:
    from transformers import LogitsProcessorList, StoppingCriteriaList

    from saffron.mrm.pretrained import MRM

#: What is left to ``generate`` itself: how long and where answers end, and in what form they are returned.
PREPARED = (
    "max_new_tokens",
    "max_length",
    "eos_token_id",
    "pad_token_id",
    "bos_token_id",
    "return_dict_in_generate",
    "use_cache",
)
#: All other fields of a generation config, which say what is generated.
SHAPING = [name for name in vars(GenerationConfig()) if name[0] != "_" and name not in PREPARED]
#: Fields that change nothing at 1; all others but the temperature change nothing where they are zero, false or not set.
NEUTRAL_AT_ONE = ("temperature", "top_p", "typical_p", "repetition_penalty", "num_beams", "num_return_sequences")
#: Fields by which ``generate`` repeats the prompts before a decoding loop sees them.
REPEATING = ("num_beams", "num_return_sequences")
#: Stopping criteria that stand for the token limit and the end of an answer.
CRITERIA = ("MaxLengthCriteria", "EosTokenCriteria")
#: What ``generate`` prepares for a model's forward, which the engine does without.
FORWARD = ("attention_mask", "position_ids", "past_key_values", "cache", "use_cache", "logits_to_keep")


@dataclass
class SearchOutput(GenerateDecoderOnlyOutput):
    """What :func:`generate` gives with ``return_dict_in_generate``.

    Attributes:
        sequences: int64 [B, L + T], prompts and answers.
        results: of each prompt: the answer's tokens, its reward, whether it ended, and what it cost.
    """

    results: tuple[Result, ...] | None = None


def generate(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    generation_config: GenerationConfig | None = None,
    *,
    method: str = "saffron",
    width: int | None = None,
    samples: int | None = None,
    mrm: MRM | PreTrainedModel | None = None,
    unseen: Tensor | None = None,
    guard: PreTrainedModel | None = None,
    formats: ChatFormats | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = False,
    **arguments: Any,
) -> Tensor | SearchOutput:
    """Answer each prompt by a search; to be given to ``generate`` as ``custom_generate``, with these arguments beside it.

    Of ``generate``'s own arguments these are honoured: ``input_ids`` with ``attention_mask`` (padded on the left),
    ``max_new_tokens`` or ``max_length``, ``eos_token_id``, ``pad_token_id``, ``return_dict_in_generate``, and those that the
    method has as a setting (Saffron-1: ``top_p``, ``min_p``, ``min_new_tokens``, ``no_repeat_ngram_size``). ``do_sample`` may be
    given where it says what the method does. Recommendations in the model's own generation config (its temperature, say) are
    meant for plain sampling and are not used; a value in a ``generation_config`` that equals the model's own counts as such.

    Args:
        model: the policy, a causal LM of the Llama, Mistral, Qwen2 or Qwen3 class, in eval mode.
        input_ids: [B, L] prompts as the policy reads them, any forced beginning of the answers included.
        logits_processor: as ``generate`` prepared them; one of the caller's own is refused.
        stopping_criteria: likewise.
        generation_config: likewise.
        method: name of a search method, this package's or an installed one.
        width: budget of a method whose budget is a width (Saffron-1's N).
        samples: budget of a method whose budget is a number of samples (Best-of-N).
        mrm: multifurcation reward model, with its unseen tokens (:class:`saffron.mrm.pretrained.MRM`) or without; on the
            policy's device, of any dtype.
        unseen: [V] bool, tokens that ``mrm`` never saw as a target, for a model without them.
        guard: process reward model of the methods that read one; it needs ``formats``.
        formats: how guard and MRM are spoken to. The prompt is taken out of the policy's format, and put into theirs. Without
            them an MRM reads what the policy reads.
        settings: the method's, as in ``search.methods.<method>`` of a config.
        seed: of the draws of methods that sample. A draw belongs to seed, row of the batch, sample and step; torch's generators
            have no part in it.
        progress: show the steps of the search as a bar. It may end early: once all answers have.
        arguments: what else ``generate`` was given or prepared.

    Returns:
        int64 [B, L + T]: prompts and answers, each to its EOS, padded on the right to the longest; or :class:`SearchOutput`.

    Raises:
        TrieError: if the engine cannot drive a model, or a sliding window is too short.
        TypeError: if an argument is missing or of the wrong type.
        ValueError: if an argument is out of range or cannot be honoured.
        MethodError: for an unknown method.
        All before anything is computed, but for a ValueError of NaN in probabilities or rewards.
    """
    if generation_config is None:
        raise TypeError("saffron.generate is given to generate: policy.generate(**inputs, custom_generate=saffron.generate, ...)")
    described = discovery.method(method)
    chosen = _settings(method, described, settings or {}, _asked(model, generation_config, arguments))
    _refuse_rest(model, input_ids, logits_processor, stopping_criteria, generation_config, arguments)
    budget = _budget(method, described, width=width, samples=samples)
    check_numbers({"seed": 0}, {"seed": seed})
    models = _models(method, described, chosen, model, mrm, unseen, guard, formats, _end(model, generation_config, formats))
    limit = int(generation_config.max_length) - input_ids.shape[1]
    rows = _rows(input_ids, arguments.get("attention_mask"))
    prompts = [_prompt(row, ids, formats, chosen) for row, ids in enumerate(rows)]
    _check_prompts(models, described.reads(chosen), prompts, limit)
    bar = partial(tqdm, desc=described.label, unit="step") if progress else iter
    block = Block(models, prompts, RandomKey("generate", seed), limit, bar)
    results = discovery.search(method)(block, chosen, [budget])
    pad = generation_config.pad_token_id
    sequences = _appended(input_ids, [one.output_ids for one in results], models.formats.eos_id if pad is None else int(pad))
    if generation_config.return_dict_in_generate:
        return SearchOutput(sequences=sequences, results=tuple(results))  # type: ignore[arg-type]
    return sequences


def _with_fields() -> inspect.Signature:
    """The signature by which ``generate`` hands over every field of a generation config that the call itself gives.

    Only so can what was asked for here be told from defaults and from a model's recommendations.
    """
    own = inspect.signature(generate)
    *named, arguments = own.parameters.values()
    fields = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in SHAPING]
    return own.replace(parameters=[*named, *fields, arguments])


generate.__signature__ = _with_fields()  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------------- what is asked for
def _asked(model: PreTrainedModel, config: GenerationConfig, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fields of a generation config that the call gives, or that its config has otherwise than the model's own.

    Those of the call are taken out of ``arguments``.
    """
    given = {name: arguments.pop(name) for name in SHAPING if name in arguments}
    own, usual = model.generation_config, GenerationConfig._get_default_generation_params()
    found = {}
    for name in SHAPING:
        value, expected = getattr(config, name, None), getattr(own, name, None)
        expected = usual.get(name) if expected is None else expected
        if value != expected or name in REPEATING:
            found[name] = value
    if config.min_new_tokens is not None:
        found.pop("min_length", None)  # which generate made of it
    return found | {name: value for name, value in given.items() if value is not None}


def _settings(name: str, described: Method, given: Mapping[str, Any], asked: dict[str, Any]) -> Any:
    """The method's settings: those given, and fields of the generation config that are settings of the method."""
    fields = described.settings.model_fields
    if asked.pop("do_sample", described.draws) != described.draws:
        does = "draws its answers" if described.draws else "draws nothing at random"
        raise ValueError(f"do_sample: the method {name} {does}; give {described.draws} or leave it out")
    values = dict(given)
    for field, value in asked.items():
        if field in fields:
            if field in values:
                raise ValueError(f"{field} is given twice, once in settings; give it once")
            values[field] = value
        elif not _neutral(field, value):
            raise ValueError(f"{field}={value!r} cannot be honoured by the method {name}; leave it out")
    try:
        return described.settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = f"; settings of {name}: {', '.join(fields) or 'none'}" if first["type"] == "extra_forbidden" else ""
        raise ValueError(f"{where}: {first['msg']}, not {first['input']!r}{known}") from None


def _neutral(field: str, value: Any) -> bool:
    """Whether a field of a generation config asks for nothing at this value."""
    return value == 1 if field in NEUTRAL_AT_ONE else not value


def _refuse_rest(
    model: PreTrainedModel,
    input_ids: Tensor,
    processors: Sequence[Any] | None,
    criteria: Sequence[Any] | None,
    config: GenerationConfig,
    arguments: Mapping[str, Any],
) -> None:
    """Refuse the caller's own processors and criteria, and what a forward alone could use."""
    prepare: Any = model._get_logits_processor
    usual = prepare(  # what the generation config alone brings
        generation_config=config,
        input_ids_seq_length=input_ids.shape[1],
        encoder_input_ids=input_ids,
        logits_processor=[],
        device=input_ids.device,
        model_kwargs={},
    )
    own = Counter(type(each).__name__ for each in processors or ()) - Counter(type(each).__name__ for each in usual)
    if own:
        raise ValueError(f"logits_processor: {', '.join(own)} cannot be honoured by a search; leave it out")
    ends = [type(each).__name__ for each in criteria or () if type(each).__name__ not in CRITERIA]
    if ends:
        raise ValueError(f"stopping_criteria: {', '.join(ends)} cannot be honoured by a search; leave it out")
    unknown = [name for name, value in arguments.items() if name not in FORWARD and value is not None]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot be honoured by a search, which reads input_ids and attention_mask alone")
    for name in ("past_key_values", "cache"):  # its name before and since transformers 5.24
        cache = arguments.get(name)
        if cache is not None and cache.get_seq_length() > 0:
            raise ValueError(f"{name}: a search keeps keys and values of its own; leave it out and give the whole prompt")
    positions, mask = arguments.get("position_ids"), arguments.get("attention_mask")
    if positions is not None:
        there = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
        if not torch.equal(positions.expand_as(there)[there], (there.cumsum(1) - 1)[there]):
            raise ValueError("position_ids: a prompt's tokens are counted from 0; leave it out")


def _budget(name: str, described: Method, **given: int | None) -> int:
    """The budget, of the kind that the method has."""
    wrong = [kind for kind, value in given.items() if value is not None and kind != described.budget]
    if wrong:
        has = f"its budget is {described.budget}" if described.budget else "it has no budget"
        raise TypeError(f"{wrong[0]}: not of the method {name}; {has}")
    if described.budget is None:
        return 0
    value = given[described.budget]
    if value is None:
        raise TypeError(f"{described.budget}: the method {name} needs it, as its budget")
    check_numbers({described.budget: 1}, {described.budget: value})
    return int(value)


def _end(model: PreTrainedModel, config: GenerationConfig, formats: ChatFormats | None) -> int:
    """The one token that ends an answer."""
    ids, own = _ids(config.eos_token_id), _ids(model.generation_config.eos_token_id)
    if formats is not None and (formats.eos_id in ids or not ids) and (len(ids) < 2 or ids == own):
        return formats.eos_id
    if formats is not None and len(ids) == 1:
        raise ValueError(f"eos_token_id is {ids[0]}, but answers end with {formats.eos_id} in the chat formats; make them agree")
    if len(ids) != 1:
        raise ValueError(f"eos_token_id: a search needs the one token that ends an answer, not {ids}; give it as eos_token_id")
    return ids[0]


def _ids(value: int | Sequence[int] | Tensor | None) -> list[int]:
    if value is None:
        return []
    return [int(one) for one in torch.as_tensor(value).reshape(-1).tolist()]


# ------------------------------------------------------------------------------------------------------- models, prompts
def _models(
    name: str,
    described: Method,
    settings: Any,
    policy: PreTrainedModel,
    mrm: MRM | PreTrainedModel | None,
    unseen: Tensor | None,
    guard: PreTrainedModel | None,
    formats: ChatFormats | None,
    eos: int,
) -> SearchModels:
    """The models that the method reads, checked."""
    reads = described.reads(settings)
    scores: Any
    scores, known = (mrm, None) if mrm is None or isinstance(mrm, torch.nn.Module) else (mrm.model, mrm.unseen)
    given: dict[str, Any] = {"policy": policy, "guard": guard, "mrm": scores}
    for which in sorted(reads):
        if given[which] is None:
            raise TypeError(f"{which}: the method {name} reads it; give it as {which}")
    if "guard" in reads and formats is None:
        raise TypeError("formats: the guard's verdict is read in its chat format; give them, see saffron.ChatFormats.load")
    check_models(**{which: model for which, model in given.items() if which in reads})
    vocabulary = policy.config.vocab_size
    if not 0 <= eos < vocabulary:
        raise ValueError(f"eos_token_id {eos} is outside the vocabulary of {vocabulary} tokens")
    unseen = known if unseen is None else unseen
    if unseen is not None:
        check_unseen(unseen, vocabulary)
        unseen = unseen.to(policy.device)
    nothing = ChatFormat((), (), ())
    spoken = ChatFormats(nothing, nothing, nothing, safe_id=0, unsafe_id=1, eos_id=eos) if formats is None else formats
    return SearchModels(
        policy=policy,
        guard=guard if "guard" in reads else None,
        formats=replace(spoken, eos_id=eos),
        mrm=scores,
        unseen=unseen,
    )


def _rows(input_ids: Tensor, mask: Tensor | None) -> list[list[int]]:
    """The prompts without their padding."""
    there = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
    for row, (seen, last) in enumerate(zip((there[:, 1:] < there[:, :-1]).any(1).tolist(), there[:, -1].tolist(), strict=True)):
        if seen or not last:
            raise ValueError(
                f"attention_mask[{row}] must be zeros and then ones: pad on the left (tokenizer.padding_side = 'left')"
            )
    return [ids[kept].tolist() for ids, kept in zip(input_ids, there.to(input_ids.device), strict=True)]


def _prompt(row: int, ids: list[int], formats: ChatFormats | None, settings: Any) -> SearchPrompt:
    """A prompt as each model reads it; its number is its row in the batch."""
    if formats is None:
        return SearchPrompt(row, ids, ids, ids)
    asked, begun = _taken_out(row, ids, formats.policy)
    begun = begun if isinstance(settings, Rewarded) and settings.reward_reads_prefill else []
    return SearchPrompt(row, ids, formats.guard.prompt(asked) + begun, formats.mrm.prompt(asked) + begun)


def _taken_out(row: int, ids: list[int], format: ChatFormat) -> tuple[list[int], list[int]]:
    """The prompt within its format, and the beginning of an answer that follows."""
    prefix, infix = list(format.prefix), list(format.infix)
    inner = ids[len(prefix) :]
    if ids[: len(prefix)] != prefix:
        raise ValueError(f"input_ids[{row}] does not begin as the policy's chat format does, {prefix}; format prompts with it")
    if not infix:
        return inner, []
    places = [place for place in range(len(inner) - len(infix) + 1) if inner[place : place + len(infix)] == infix]
    if len(places) != 1:
        raise ValueError(
            f"input_ids[{row}] holds what stands before an answer in the policy's chat format, {infix}, {len(places)} times, "
            "not once; give one prompt in that format, without earlier turns"
        )
    return inner[: places[0]], inner[places[0] + len(infix) :]


def _check_prompts(models: SearchModels, reads: frozenset[str], prompts: Sequence[SearchPrompt], limit: int) -> None:
    vocabulary = models.policy.config.vocab_size
    for which in sorted(reads):
        read = [getattr(prompt, f"{which}_ids") for prompt in prompts]
        check_prompts("input_ids" if which == "policy" else f"input_ids as the {which} reads them:", read, vocabulary)
        check_window(which, getattr(models, which), read, limit)


def _appended(input_ids: Tensor, answers: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Prompts [B, L] with the answers behind them, padded on the right to the longest."""
    longest = max(map(len, answers))
    rows = [[*answer, *[pad] * (longest - len(answer))] for answer in answers]
    return torch.cat([input_ids, torch.tensor(rows, dtype=input_ids.dtype, device=input_ids.device)], 1)
