from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_results import PROJECT

from saffron import config as configs
from saffron.analysis import claims, paper
from saffron.analysis.statistics import Estimate, exact


def _estimate(low: float, high: float, per_seed: tuple[float, ...]) -> Estimate:
    return Estimate((low + high) / 2, low, high, per_seed)


@pytest.mark.parametrize(
    ("estimate", "verdict", "leaning"),
    [
        (_estimate(-0.3, -0.1, (-0.2, -0.1, -0.3)), "reproduced", "as claimed"),
        (_estimate(0.1, 0.3, (0.2, 0.1, 0.3)), "not reproduced", "opposite"),
        (_estimate(-0.3, -0.1, (-0.4, -0.4, 0.1)), "reproduced", "as claimed"),
        (_estimate(0.1, 0.3, (0.4, 0.4, -0.1)), "not reproduced", "opposite"),
        (_estimate(-0.3, 0.1, (-0.2, -0.1, -0.3)), "undecided", "open"),
        (_estimate(-0.3, -0.1, (-0.2,)), "one seed", "as claimed"),
        (_estimate(0.1, 0.3, (0.2,)), "one seed", "opposite"),
        (Estimate(None, note="undefined"), "one seed", "open"),
        (Estimate(None, per_seed=(None, None)), "undecided", "open"),
        (exact(-2.0), "reproduced", "as claimed"),
    ],
)
def test_orderings(estimate: Estimate, verdict: str, leaning: str) -> None:
    assert claims.sign_verdict(estimate, -1) == (verdict, leaning)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.sampled_from([1, -1]))
def test_seeds_own_estimates_decide_nothing(per_seed: list[float], sign: Literal[1, -1]) -> None:
    assert claims.sign_verdict(_estimate(-0.3, -0.1, tuple(per_seed)), sign)[0] != "undecided"
    assert claims.sign_verdict(_estimate(-0.3, 0.1, tuple(per_seed)), sign)[0] == "undecided"


@pytest.mark.parametrize(
    ("claim", "quantities", "counted"),
    [
        ({}, {"a": (-0.2, -0.1, 0.1)}, [2, 3]),
        ({"test": "positive"}, {"a": (-0.2, -0.1, 0.1)}, [1, 3]),
        ({}, {"a": (-0.2, -0.1, 0.1), "b": (0.1, -0.1, -0.1)}, [1, 3]),  # a seed counts where all its estimates do
        ({}, {"a": (-0.2, None, 0.0)}, [1, 3]),
        ({"test": "at_most", "threshold": 0.5}, {"a": (0.4, 0.6)}, [1, 2]),
        ({"test": "numbers", "numbers": {"a": 0.5}, "tolerance": 0.1}, {"a": (0.45, 0.61, 0.3, None)}, [1, 4]),
        ({"test": "exact", "tolerance": 0.0}, {"a": (0.0, 1e-9)}, [1, 2]),
        ({}, {"a": (-0.2,)}, None),
        ({}, {"a": (-0.2, -0.1), "b": ()}, None),
    ],
)
def test_seeds_on_the_claimed_side_are_counted(
    claim: dict[str, Any], quantities: dict[str, tuple[float | None, ...]], counted: list[int] | None
) -> None:
    ours = {name: _estimate(-0.3, 0.1, per_seed) for name, per_seed in quantities.items()}
    record = claims.judge(_claim(**{"quantities": list(quantities), **claim}), ours, paper_models=True)
    assert record["seeds_as_claimed"] == counted
    k_of_n = f" ({counted[0]} of {counted[1]} seeds)" if counted else ""
    assert claims.describe(record) == ("one seed (open)" if record["verdict"] == "one seed" else record["verdict"] + k_of_n)


def _difference(low: float, high: float, error: float | None = 0.1) -> Estimate:
    return Estimate((low + high) / 2, low, high, (low, high), standard_error=error)


OPEN, DECIDED = _difference(-0.3, 0.1), _difference(-0.9, -0.1)


@pytest.mark.parametrize(
    ("quantities", "seen"),
    [
        ({"matched/x": OPEN}, 0.2842),
        ({"matched/x": OPEN, "matched/y": _difference(-0.5, 0.1)}, 0.3842),  # enough for either
        ({"matched/x": OPEN, "matched/y": DECIDED}, 0.2842),  # what is decided needs no more
        ({"below_no_defense/x": OPEN}, 0.2842),
        ({"matched/x": DECIDED}, None),
        ({"matched/x": OPEN, "matched/y": _difference(0.1, 0.2)}, None),  # not reproduced
        ({"matched/x": OPEN, "matched/y": _difference(-0.3, 0.1, None)}, None),
        ({"matched/x": OPEN, "matched/y": Estimate(None, per_seed=(None, None))}, None),
        ({"exploration/scaleff/x": OPEN}, 0.2842),  # in its own unit
        ({"matched/x": Estimate(-0.1, -0.3, 0.1, (-0.1,), standard_error=0.1)}, None),  # one seed
    ],
)
def test_an_undecided_ordering_says_what_it_could_have_seen(quantities: dict[str, Estimate], seen: float | None) -> None:
    record = claims.judge(_claim(quantities=list(quantities)), quantities, paper_models=False)
    assert record["difference_seen"] == (None if seen is None else pytest.approx(seen, abs=1e-4))
    words = f": a difference of {seen:.3f} would have been seen" if seen else ""
    assert claims.verdict_line(record) == claims.describe(record) + words


def test_the_count_of_seeds_is_that_of_either_judge() -> None:
    config = configs.load(PROJECT / "config/sandbox.yaml")
    guard, oracle = ({"a": _estimate(-0.3, -0.1, own)} for own in ((-0.2, -0.1), (-0.2, 0.1)))
    (record,) = claims.judge_all([_claim()], guard, {"oracle": oracle}, config)
    assert (record["seeds_as_claimed"], record["by"]["oracle"]["seeds_as_claimed"]) == ([2, 2], [1, 2])
    row = claims.markdown([record]).splitlines()[-1]
    assert row.endswith("| reproduced (2 of 2 seeds) | reproduced (1 of 2 seeds) |")


@given(st.floats(-1, 1), st.floats(0, 1), st.lists(st.floats(-1, 1), min_size=2, max_size=4))
def test_a_sign_and_its_opposite_never_both_hold(low: float, width: float, per_seed: list[float]) -> None:
    estimate = _estimate(low, low + width, tuple(per_seed))
    verdicts = {claims.sign_verdict(estimate, 1)[0], claims.sign_verdict(estimate, -1)[0]}
    assert verdicts in ({"reproduced", "not reproduced"}, {"undecided"})


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.45, 0.55, "reproduced"), (0.55, 0.65, "undecided"), (0.7, 0.8, "not reproduced")]
)
def test_numbers_are_equivalent_different_or_undecided(low: float, high: float, verdict: str) -> None:
    assert claims.number_verdict(_estimate(low, high, ()), 0.5, 0.1) == verdict


def _claim(**entries: Any) -> dict[str, Any]:
    return {"id": "x", "source": "Table 9", "statement": "s", "test": "negative", "quantities": ["a"], **entries}


def test_absolute_numbers_are_not_testable_with_other_models() -> None:
    claim = _claim(test="numbers", numbers={"a": 0.5}, tolerance=0.1)
    quantities = {"a": _estimate(0.9, 0.95, (0.9,))}
    assert claims.judge(claim, quantities, paper_models=False)["verdict"] == "not testable"
    assert claims.judge(claim, quantities, paper_models=True)["verdict"] == "not reproduced"


def test_a_missing_quantity_is_not_testable_and_named() -> None:
    record = claims.judge(_claim(quantities=["a", "b"]), {"a": _estimate(-2, -1, (-1, -1))}, paper_models=False)
    assert record["verdict"] == "not testable" and record["cause"] == "this config gives no b"


def test_thresholds_shift_the_interval() -> None:
    claim = _claim(test="at_least", threshold=0.95)
    assert claims.judge(claim, {"a": _estimate(0.96, 0.98, (0.96, 0.98))}, paper_models=False)["verdict"] == "reproduced"
    assert claims.judge(claim, {"a": _estimate(0.90, 0.94, (0.9, 0.94))}, paper_models=False)["verdict"] == "not reproduced"


@pytest.mark.parametrize(
    ("rise", "verdict"), [((-0.1, 0.05), "reproduced"), ((0.01, 0.05), "not reproduced"), ((-0.2, -0.1), "reproduced")]
)
def test_a_steady_fall_has_no_rise_outside_its_interval(rise: tuple[float, float], verdict: str) -> None:
    claim = _claim(test="falling", quantities=["slope"], steps=["step/x"])
    value = (rise[0] + rise[1]) / 2
    quantities = {"slope": _estimate(-0.2, -0.1, (-0.1, -0.2)), "step/x/1-2": _estimate(*rise, (value, value))}
    assert claims.judge(claim, quantities, paper_models=False)["verdict"] == verdict


def test_exact_claims_hold_to_the_tolerance() -> None:
    claim = _claim(test="exact", tolerance=0.0)
    assert claims.judge(claim, {"a": exact(0.0)}, paper_models=False)["verdict"] == "reproduced"
    assert claims.judge(claim, {"a": exact(1e-9)}, paper_models=False)["verdict"] == "not reproduced"


def test_every_shipped_claim_is_well_formed() -> None:
    found = paper.claims()
    assert len(found) >= 25 and len({claim["id"] for claim in found}) == len(found)
    for claim in found:
        assert claim["test"] in {"numbers", "negative", "positive", "at_least", "at_most", "falling", "exact"}, claim["id"]
        if claim["test"] == "numbers":
            assert claim["numbers"] and ("tolerance" in claim) != ("relative_tolerance" in claim), claim["id"]
        else:
            assert claim["quantities"], claim["id"]
        assert ("threshold" in claim) == (claim["test"] in {"at_least", "at_most"}), claim["id"]


def test_the_claims_shown_first_are_few_and_testable_with_any_model() -> None:
    first = paper.headlines()
    assert 1 <= len(first) <= 8
    tests = {claim["id"]: claim["test"] for claim in paper.claims()}
    assert "numbers" not in {tests[claim] for claim in first}  # which the paper's own models alone can test
    assert all(isinstance(claim.get("headline", False), bool) for claim in paper.claims())


def test_claims_print_the_reference_tables() -> None:
    """Numbers in claims.yaml are those of the reference CSV files."""
    numbers = {name: value for claim in paper.claims() for name, value in claim.get("numbers", {}).items()}
    for _, row in paper.table("table2").iterrows():
        assert numbers[f"matched_asr/scaling/per_model/{row['method']}"] == row["harmful_hexphi_asr"]
        assert numbers[f"matched_asr/matched/per_model/{row['method']}"] == row["ai2_refusals_asr"]
    for _, row in paper.table("table3").iterrows():
        width = int(row["search_width"])
        assert numbers[f"asr/scaling/{'saffron' if width else 'no_defense'}/{width}"] == row["asr"]
    for _, row in paper.table("table1").iterrows():
        method = "deal" if row["method"] == "mcts" else row["method"]
        name = f"{method}/{row['knob']}{int(row['knob_value'])}"
        assert numbers[f"compute/exploration/per_model/{name}"] == row["tflop"]
        assert (numbers[f"asr/exploration/{name}"], numbers[f"scaleff/{name}"]) == (row["asr"], row["scaleff"])
    for _, row in paper.table("figure2_fits").iterrows():
        assert numbers[f"fit/scaling/per_model/{row['method']}/intercept"] == row["intercept"]
        assert numbers[f"fit/scaling/per_model/{row['method']}/slope"] == row["slope_per_ln_tflop"]
    printed = paper.table("figure4b_summary").set_index("statistic")["value"]
    for name, value in numbers.items():
        if name.startswith("mrm/"):
            assert value == printed[name.removeprefix("mrm/")]


@pytest.mark.parametrize(("name", "expected"), [("sandbox", False), ("paper", True), ("paper-1b", False)])
def test_which_configs_run_the_papers_models(name: str, expected: bool) -> None:
    assert claims.has_paper_models(configs.load(PROJECT / "config" / f"{name}.yaml")) is expected


def estimate(
    value: float | None, low: float | None, high: float | None, *, exact: bool = False
) -> dict[str, float | bool | None]:
    return {"value": value, "low": low, "high": high, "exact": exact}


@pytest.mark.parametrize(
    ("record", "printed"),
    [
        (estimate(0.2, 0.16, 0.2465), "0.200 [0.160, 0.246]"),
        (estimate(0.962, 0.897, 1.0), "0.962 [0.897, 1.000]"),
        (estimate(-0.064, -0.13, -0.0), "-0.064 [-0.130, 0.000]"),
        (estimate(-0.00303, -0.0293, 0.0222), "-0.0030 [-0.0293, 0.0222]"),
        (estimate(0.000188, 0.000094, 0.000289), "0.000188 [0.000094, 0.000289]"),
        (estimate(0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
        (estimate(1.5e-6, None, 2e-5), "1.50e-06 […, 2.00e-05]"),
        (estimate(22.5537, None, None), "22.55"),
        (estimate(7.0, 7.0, 7.0, exact=True), "7"),
        (estimate(674905.0, None, None, exact=True), "674,905"),
        (estimate(0.3162, 0.3162, 0.3162, exact=True), "0.316"),
        (estimate(None, None, None), "undefined"),
        (None, "–"),
    ],
)
def test_an_estimate_and_its_ends_share_their_decimals(record: dict[str, float | bool | None] | None, printed: str) -> None:
    assert claims.format_estimate(record) == printed


def _judged(verdict: str, leaning: str | None = None, **by: tuple[str, str | None]) -> dict[str, Any]:
    record: dict[str, Any] = {"verdict": verdict, "leaning": leaning, "source": f"Table {len(by)}", "threshold": None}
    record["statement"] = f"{verdict} and {leaning}."
    return record | {"by": {judge: {"verdict": theirs, "leaning": lean} for judge, (theirs, lean) in by.items()}}


def test_claims_that_hold_by_one_judge_alone_are_named() -> None:
    yes, no = ("reproduced", "as claimed"), ("undecided", "open")
    records = [
        _judged("reproduced", "as claimed", oracle=yes, refusals=yes),
        _judged("one seed", "as claimed", oracle=("one seed", "open"), refusals=("not reproduced", "opposite")),
        _judged("reproduced", "exactly", oracle=no, refusals=yes),
        _judged("one seed", "opposite", oracle=yes, refusals=yes),  # does not hold by the guard
        _judged("reproduced", "of no judge"),  # no judge enters
    ]
    assert claims.by_judges(records, "guard") == (
        "Claims about attack success that hold by guard: 3. By every other judge too (oracle, refusals): 1. "
        "By guard alone: “one seed and as claimed” (Table 2). "
        "By guard, but not by oracle: “reproduced and exactly” (Table 2)."
    )
    assert [claims.not_by(record) for record in records] == [[], ["oracle", "refusals"], ["oracle"], [], []]
    assert claims.by_judges(records[3:], "guard") == (
        "No claim about attack success holds by guard; other judges: oracle, refusals."
    )
    assert claims.by_judges(records[4:], "guard") == "Attack success is by guard alone: no other judge stands beside it."
