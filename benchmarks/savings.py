"""What each kind of work that the engine leaves out saves, beside the same search without it."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from benchmarks.measure import Timing, paired, ratio
from benchmarks.search import NEW_TOKENS, PROMPT_TOKENS, ids_of
from benchmarks.shapes import EOS, SHAPES, TARGETS, Pair, pair, peaked
from saffron.engine.compute import Ledger
from saffron.engine.trie import TokenTrie
from saffron.methods.saffron.algorithm import SPARSE_UNEMBEDDING, MRMScorer, search

#: Unembedding biases of EOS that make sequences end all along the search.
POLICY_EOS, MRM_EOS = 2.0, 1.0
FIRST_END = 8


def savings(turns: int, width: int = 32, ending_prompts: int = 4, ending_width: int = 16) -> list[dict[str, Any]]:
    """One entry per kind of work left out: what it is, CPU seconds with and without it, executed FLOPs as a share."""
    sharp = peaked(pair(), SHAPES[TARGETS].sharpness)
    return [_unembedding(sharp, turns, width), _prompt(sharp, turns, width), _ends(turns, ending_prompts, ending_width)]


def _search(models: Pair, ids: list[list[int]], width: int, *, sparse: float, first_end: int) -> tuple[Ledger, Ledger]:
    scorer = MRMScorer(models.mrm, ids, None, width=width, max_new_tokens=NEW_TOKENS, sparse_unembedding=sparse)
    limits = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": first_end}
    return search(models.policy, scorer, ids, width=width, top_p=0.8, eos_token_id=EOS, **limits).ledger, scorer.ledger


def _entry(what: str, count: int, width: int, timings: dict[str, Timing], flops: dict[str, float]) -> dict[str, Any]:
    return {
        "what": what,
        "prompts": count,
        "width": width,
        "cpu_seconds": {name: statistics.median(timing.cpu) for name, timing in timings.items()},
        "time_ratio": ratio(timings["with"].cpu, timings["without"].cpu),
        "flop_ratio": flops["with"] / flops["without"],
    }


def _unembedding(models: Pair, turns: int, width: int) -> dict[str, Any]:
    """MRM rewards of the candidates' rows only, under a peaked policy; FLOPs are the MRM's."""
    ids = ids_of(models, 1)
    shares = {"with": SPARSE_UNEMBEDDING, "without": 0.0}
    functions = {
        name: lambda s=share: _search(models, ids, width, sparse=s, first_end=NEW_TOKENS) for name, share in shares.items()
    }
    flops = {name: float(function()[1].executed.sum()) for name, function in functions.items()}
    what = "MRM unembedding for the candidates' rows only (whole search; MRM FLOPs)"
    return _entry(what, 1, width, paired(functions, turns, warm_up=False), flops)


def _prompt(models: Pair, turns: int, width: int) -> dict[str, Any]:
    """The prompt's nodes read once for all sequences of the beam, against once per sequence (policy)."""
    ids = ids_of(models, 1)
    functions = {
        name: lambda given=given: TokenTrie(models.policy, given) for name, given in (("with", ids), ("without", ids * width))
    }
    flops = {name: float(function().ledger.executed.sum()) for name, function in functions.items()}
    what = "the prompt's nodes shared by the beam (reading the prompt alone; policy FLOPs)"
    return _entry(what, 1, width, paired(functions, turns, warm_up=False), flops)


def _ends(turns: int, count: int, width: int) -> dict[str, Any]:
    """A search whose sequences end, against one of as many steps whose sequences all go on: what filler rows would cost."""
    models = pair()
    ids = ids_of(models, count)
    for model, bias in ((models.policy, POLICY_EOS), (models.mrm, MRM_EOS)):
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size), requires_grad=False)
        model.lm_head.bias[EOS] = bias
    firsts = {"with": FIRST_END, "without": NEW_TOKENS}
    functions = {name: lambda f=first: _search(models, ids, width, sparse=0.0, first_end=f) for name, first in firsts.items()}
    ledgers = {name: function() for name, function in functions.items()}
    flops = {name: float(sum(ledger.executed.sum() for ledger in pair_)) for name, pair_ in ledgers.items()}
    rows = {name: float(policy.tokens.sum()) - count * PROMPT_TOKENS for name, (policy, _) in ledgers.items()}
    what = "finished sequences and prompts dropped (whole search; FLOPs of both models)"
    share = {"share_of_rows_left": rows["with"] / rows["without"]}
    return _entry(what, count, width, paired(functions, turns, warm_up=False), flops) | share
