from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saffron.analysis import matching
from saffron.analysis.study import Study
from saffron.config import Match


@given(st.dictionaries(st.integers(1, 64), st.floats(1, 1e6), min_size=1), st.floats(1, 1e6))
def test_the_largest_budget_within_the_limit_or_the_cheapest(compute: dict[int, float], limit: float) -> None:
    chosen = matching.largest_within(compute, limit)
    if compute[chosen] <= limit:
        assert not [budget for budget in compute if budget > chosen and compute[budget] <= limit]
    else:
        assert compute[chosen] == min(compute.values()) > limit


def test_budgets_are_chosen_on_compute_alone(three_seeds: Study) -> None:
    results = three_seeds.results("scaling")
    chosen = matching.match(results, Match.model_validate({}))
    flipped = matching.match(
        replace(results, frame=results.frame.assign(asr=1.0 - results.frame["asr"])),
        Match.model_validate({}),
    )
    assert {m: c.budgets for m, c in chosen.items()} == {m: c.budgets for m, c in flipped.items()}
    assert chosen["best_of_n"].ratios == dict.fromkeys((0, 1, 2), 1.0)
    for matched in chosen.values():
        assert all(ratio <= 1.05 for ratio in matched.ratios.values()) is matched.within


def test_counting_per_model_halves_saffrons_budget(three_seeds: Study) -> None:
    results = three_seeds.results("scaling")
    once, per_model = (matching.match(results, Match.model_validate({}), c) for c in ("once", "per_model"))
    assert (once["saffron"].key.budget, per_model["saffron"].key.budget) == (32, 16)
    for method in ("best_of_n", "rebase", "deal"):
        assert once[method].budgets == per_model[method].budgets
        assert once[method].ratios == pytest.approx(per_model[method].ratios)
