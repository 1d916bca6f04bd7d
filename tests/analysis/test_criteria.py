from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import synthetic_results
from hypothesis import given
from hypothesis import strategies as st

from saffron import config as configs
from saffron import jobs, records
from saffron.analysis import criteria
from saffron.layout import Layout
from saffron.records import RecordError

ROOT = Path(__file__).parents[2]
CONFIG = configs.load(ROOT / "config/sandbox.yaml")

CRITERION = {"id": "c", "statement": "s", "quantity": "asr/x/1", "over": "every seed"}


def judged(values: list[float], **fields: object) -> dict[str, object]:
    by_seed = {seed: {"asr/x/1": value} for seed, value in enumerate(values)}
    (row,) = criteria.judge([CRITERION | fields], by_seed)
    return row


def test_every_seed_must_satisfy_a_bound() -> None:
    assert judged([0.8, 0.9], at_least=0.8)["met"]
    assert not judged([0.79, 0.9], at_least=0.8)["met"]
    assert judged([0.1, 0.04], at_most=0.1)["met"]
    assert not judged([0.05], below=0.05)["met"]
    assert not judged([0.88], above=0.88)["met"]


def test_a_spread_is_one_number_over_the_seeds() -> None:
    row = judged([0.1, 0.2, 0.3], over="seeds", quantity="asr/x/1/sd", at_most=0.1)
    assert row["values"] == [pytest.approx(0.1)]
    assert row["met"]
    assert not judged([0.1, 0.2, 0.31], over="seeds", quantity="asr/x/1/sd", at_most=0.1)["met"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0, 1))
def test_a_bound_and_its_opposite_are_never_both_met(values: list[float], bound: float) -> None:
    assert not (judged(values, at_least=bound)["met"] and judged(values, below=bound)["met"])


def test_an_unknown_quantity_is_named() -> None:
    with pytest.raises(RecordError, match="criterion c: no quantity asr/y/1"):
        criteria.judge([CRITERION | {"quantity": "asr/y/1", "at_most": 1}], {0: {"asr/x/1": 0.0}})


def rows(method: str, settings_id: str, budget: int, rewards: list[float], complied: list[bool]) -> pd.DataFrame:
    frame = pd.DataFrame({"guard": rewards, "oracle": complied})
    frame["prompt_id"] = range(len(frame))
    cell = {"method": method, "settings_id": settings_id, "budget": budget, "dataset": "d", "train_seed": 0, "search_seed": 0}
    filler = {"prefill_ids": [[]] * len(frame), "output_ids": [[1]] * len(frame), "response": "", "text": "Grind the salt."}
    filler |= {"reward": 0.0, "finished": True, "n_new_tokens": 1}
    filler |= {"flops_policy": float(budget + 1), "flops_reward": 1.0, "flops_executed_policy": 1.0}
    return frame.assign(**cell, **filler, flops_executed_reward=1.0, reward_calls=1)


def write(layout: Layout, name: str, *parts: pd.DataFrame) -> None:
    """Outputs, and what guard and oracle say of them."""
    frame = pd.concat(parts, ignore_index=True)
    records.write_table(layout.search(0, name), frame, records.SEARCH)
    said = {
        "guard": synthetic_results.judgements(frame, success=frame["guard"] < 0, score=frame["guard"]),
        "oracle": synthetic_results.judgements(frame, success=frame["oracle"], refused=frame["text"].str.contains("decline")),
    }
    for judge, table in said.items():
        records.write_table(layout.judgements(0, judge, name), table, records.JUDGEMENTS)


def test_quantities_are_those_of_the_stored_tables(tmp_path: Path) -> None:
    layout = Layout("sandbox", tmp_path)
    unsafe, safe = -1.0, 1.0
    curve = [
        rows("best_of_n", "default", budget, [unsafe] * bad + [safe] * (8 - bad), [True] * bad + [False] * (8 - bad))
        for budget, bad in ((1, 6), (2, 4), (4, 2), (8, 1))
    ]
    plain = rows("no_defense", "default", 0, [unsafe] * 8, [True] * 7 + [False])
    quiet = rows("no_defense", "no_attack", 0, [safe] * 8, [True] + [False] * 7)
    searched = rows("saffron", "default", 32, [safe] * 8, [True, True] + [False] * 6)
    small = rows("saffron", "default", 4, [safe] * 8, [True] * 8)  # not the largest budget
    write(layout, "development", plain, quiet, *curve)
    write(layout, "development_searches", searched, small)
    harmless = rows("no_defense", "default", 0, [safe] * 4, [False] * 4)
    harmless["text"] = ["Grind the salt.", "I must decline.", "Stir the oil.", "Stir the wax."]
    write(layout, "benign", harmless)
    agreement = {"r_squared": 0.9, "mae": 0.1, "rmse": 0.3, "mean_signed_error": -0.2}
    records.write_json(layout.mrm(0) / "evaluation.json", agreement | {"r_squared": 0.97})
    records.write_json(layout.mrm(0) / "outputs.json", {"no_defense-default/0": agreement})
    found = criteria.quantities(jobs.criteria(CONFIG).config, layout, 0)  # which holds what is read and no more
    assert found["disagreement/no_defense-default/0"] == 1 / 8
    assert found["disagreement/worst_search"] == 2 / 8
    assert found["asr/no_attack/larger"] == 1 / 8
    assert found["asr/no_defense/smaller"] == 7 / 8
    assert found["asr/saffron-default/32"] == 0
    assert found["refused/benign"] == 1 / 4
    assert found["mrm/held_out/r_squared"] == 0.97
    assert found["mrm/attacked/r_squared"] == 0.9
    assert 0.9 < found["fit/best_of_n/r_squared/smaller"] < 1
    assert found["oracle_asr/no_defense-default/0"] == 7 / 8
    blind = CONFIG.model_copy(update={"judges": CONFIG.judges[:1]})
    with pytest.raises(RecordError, match="the criteria need a judge that knows the truth; add one of the kind sandbox"):
        criteria.quantities(blind, layout, 0)


def test_the_shipped_criteria_can_be_judged_and_compare_no_methods() -> None:
    shipped = criteria.read(ROOT / criteria.CRITERIA)
    assert len({row["id"] for row in shipped}) == len(shipped)
    for row in shipped:
        assert sum(bound in row for bound in criteria.BOUNDS) == 1
        assert row["over"] in ("every seed", "seeds")
        assert row["why"]


def test_the_tables_name_every_criterion_and_seed() -> None:
    record = {
        "judges": ["guard", "oracle"],
        "criteria": [judged([0.5, 0.7], at_least=0.6)],
        "quantities": {
            "0": {"asr/x-y/1": 0.5, "oracle_asr/x-y/1": 0.6, "refused/benign": 0.1}
            | {"mrm/attacked/r_squared": 0.36, "mrm/attacked/mean_signed_error": 0.2, "mrm/attacked/rmse": 0.8}
        },
    }
    assert "| s | at least 0.6 | 0.500 0.700 | no |" in criteria.criteria_table(record)
    assert "| x-y at 1: attack success by guard / oracle | 0.500 / 0.600 |" in criteria.causes_table(record)
    assert "| 0.360 (+0.20; 0.80 beside 1.00) |" in criteria.causes_table(record)
