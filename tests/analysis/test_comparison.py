"""A run beside the published one: which record is comparable, what is expected of its numbers, and what a reader is told."""

from __future__ import annotations

from typing import Any

import pytest
import synthetic_results
from hypothesis import given
from hypothesis import strategies as st

from saffron.analysis import comparison
from saffron.analysis.comparison import HEADLINES, Spread
from saffron.config import Config, as_dict
from saffron.methods.discovery import methods

SAFFRON, R_SQUARED = "matched_asr/scaling/once/saffron", "mrm/r_squared"


def analysis(**values: list[float | None]) -> dict[str, Any]:
    """An analysis with the quantities that the comparison reads: a and b stand for two of them."""
    names = {"a": SAFFRON, "b": R_SQUARED}
    return {"quantities": {names[key]: {"per_seed": own} for key, own in values.items()}}


def published(config: Config, seeds: int = 4, **values: list[float | None]) -> dict[str, Any]:
    """A published record of a config."""
    return {
        "config": config.name,
        "settings": as_dict(config),
        "seeds": {"train": list(range(seeds))},
        "hardware": {"processor": "a processor"},
        "analysis": analysis(**values),
        "tables": {},
    }


def redraws(config: Config, *values: list[float]) -> dict[str, Any]:
    """Redraws of one number by training seed, the run itself among them."""
    draws = {f"draw{i}": {"changed": {"mrm.draw": i} if i else {}, "values": {SAFFRON: own}} for i, own in enumerate(values)}
    settings = as_dict(config)
    return {"settings": {key: settings[key] for key in ("sources", "models")}, "draws": draws}


def test_expected_is_two_deviations_of_seeds_and_draws_together() -> None:
    config = synthetic_results.config()
    record = published(config, a=[0.1, 0.2, 0.3]) | {"redraws": redraws(config, [0.20, 0.5], [0.24, 0.5])}
    (row,) = comparison.compare(analysis(a=[0.42]), record)
    assert row.published == Spread(pytest.approx(0.2), pytest.approx(0.1), 0.1, 0.3, pytest.approx(0.02))
    half = 2 * (0.1**2 + 0.02**2) ** 0.5
    assert row.expected == pytest.approx((0.2 - half, 0.2 + half))
    assert not row.within and row.check.startswith("No defense and the MRM")
    (row,) = comparison.compare(analysis(a=[0.4]), record)
    assert row.within


def test_the_mean_of_several_seeds_is_expected_nearer() -> None:
    record = published(synthetic_results.config(), a=[0.1, 0.2, 0.3])
    (row,) = comparison.compare(analysis(a=[0.3, 0.3, 0.3, 0.3]), record)
    assert row.expected == pytest.approx((0.1, 0.3)) and row.within
    assert row.published.draws is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_the_published_run_is_as_expected_beside_itself(values: list[float]) -> None:
    record = {"analysis": analysis(a=values)}
    (row,) = comparison.compare(record["analysis"], record)
    assert row.within and row.published.lowest <= row.ours + 1e-9 and row.ours - 1e-9 <= row.published.highest


def test_one_published_seed_says_nothing() -> None:
    config = synthetic_results.config()
    record = published(config, seeds=1, a=[0.2])
    (row,) = comparison.compare(analysis(a=[0.9]), record)
    assert row.expected is None and row.within is None and row.published.seeds is None
    (note,) = comparison.notes(config, "made", record, [row])
    assert note == "made has one training seed, whose spread is not known: nothing can be said of these numbers."


def test_only_what_both_have_and_no_seed_leaves_undefined_is_compared() -> None:
    config = synthetic_results.config()
    assert comparison.compare(analysis(a=[0.2]), published(config, b=[0.9, 0.9])) == []
    assert comparison.compare(analysis(a=[0.2, None]), published(config, a=[0.1, 0.2])) == []
    assert comparison.compare(analysis(a=[0.2]), published(config, a=[0.1, None])) == []


def test_headline_numbers_are_those_of_a_whole_analysis(three_seeds: Any) -> None:
    from saffron.analysis.stage import sections

    found = sections(three_seeds)[1][three_seeds.judge]
    record = {"quantities": {name: estimate.as_record() for name, estimate in found.items()}}
    values = comparison.headline_values(record)
    absent = methods().keys() - {run.method for item in three_seeds.config.search.experiments.values() for run in item.runs}
    assert absent  # methods beyond the paper's, which this config does not run
    assert list(values) == [name for name, _, _ in HEADLINES if name.rpartition("/")[2] not in absent]
    assert all(len(own) == 3 for own in values.values())


def test_redraws_deviate_around_their_own_seed() -> None:
    config = synthetic_results.config()
    assert comparison.deviation_of_draws(redraws(config, [0.2, 0.6], [0.2, 0.6]), SAFFRON) == 0
    found = comparison.deviation_of_draws(redraws(config, [0.2, 0.6], [0.4, 0.6]), SAFFRON)
    assert found == pytest.approx((0.02 / 2) ** 0.5)  # variances .02 and 0 at the two seeds
    assert comparison.deviation_of_draws(redraws(config, [0.2]), SAFFRON) is None
    assert comparison.deviation_of_draws(redraws(config, [0.2], [0.3]), R_SQUARED) is None
    assert comparison.deviation_of_draws(None, SAFFRON) is None


def _edited(config: Config, section: str, **values: Any) -> Config:
    changed = as_dict(config)
    changed[section]["sandbox"] |= values
    return Config.model_validate(changed)


def test_the_record_of_the_same_world_with_the_most_seeds_is_chosen() -> None:
    config = synthetic_results.config()
    other = _edited(config, "models", guard_outcome_share=0.9)
    ours = {
        "few": published(config, seeds=3),
        "many": published(_edited(config, "sources", benchmark_seed=5, world_seed=3), seeds=8),
        "other": published(other, seeds=20),
        "unlabelled": {key: value for key, value in published(config, seeds=30).items() if key != "settings"},
        "engine": {"tables": {}},
    }
    assert comparison.published_beside(config, ours) == "many"
    assert comparison.published_beside(other, ours) == "other"
    assert comparison.published_beside(_edited(config, "sources", doubt_factor=9.0), ours) is None


def test_keys_that_a_version_lacks_have_their_default_and_unknown_ones_are_another_world() -> None:
    settings = as_dict(synthetic_results.config())
    older = {**settings, "sources": {**settings["sources"], "sandbox": dict(settings["sources"]["sandbox"])}}
    del older["sources"]["sandbox"]["doubt_factor"]
    assert comparison.same_world(settings, older)
    assert not comparison.same_world(settings, {**settings, "sources": settings["sources"] | {"gone": 1}})
    assert not comparison.same_world(settings, {"models": settings["models"]})
    assert not comparison.same_world(None, settings) and not comparison.same_world(settings, None)


def test_a_reader_is_told_what_differs() -> None:
    config = synthetic_results.config(seeds=(5,))
    edited = _edited(config, "sources", benchmark_seed=1)
    values = as_dict(edited)
    values["mrm"]["epochs"], values["search"]["experiments"]["exploration"]["prompts"] = 1.0, 7
    record = published(config, a=[0.1, 0.2]) | {"redraws": redraws(config, [0.1], [0.2])}
    rows = comparison.compare(analysis(a=[0.15]), record)
    summary, prompts, keys = comparison.notes(Config.model_validate(values), "made", record, rows)
    assert summary == "All 1 numbers are as expected."
    seed = as_dict(config)["sources"]["sandbox"]["benchmark_seed"]
    assert prompts.endswith(f"sources.sandbox.benchmark_seed 1 (published {seed}).")
    assert keys == f"This config differs from the published one: mrm.epochs 1.0 (published {config.mrm.epochs})."
    bare = published(config, a=[0.1, 0.2])
    outside, missing = comparison.notes(config, "made", bare, comparison.compare(analysis(a=[0.9]), bare))
    assert outside.startswith("0 of 1 numbers are as expected.") and missing.startswith("No redraws are published")


def test_changed_keys_are_found_wherever_they_stand() -> None:
    one = {"a": 1, "b": {"c": [1], "d": {}}, "e": {"f": 0}, "only": 2}
    other = {"a": 1, "b": {"c": [2], "d": {}}, "e": {"f": None}}
    assert comparison.changed(one, other) == {"b.c": ([1], [2]), "e.f": (0, None)}


def test_attack_success_by_another_judge_is_said_to_be() -> None:
    config = synthetic_results.config()
    record, seeds = published(config, a=[0.2, 0.4]), comparison.compare(analysis(a=[0.3]), published(config, a=[0.2, 0.4]))
    values = as_dict(config)
    values["judges"][0] |= {"name": "mine"}
    assert not any("judged otherwise" in note for note in comparison.notes(Config.model_validate(values), "made", record, seeds))
    values["judges"] = values["judges"][1:]
    notes = comparison.notes(Config.model_validate(values), "made", record, seeds)
    assert "Attack success is judged otherwise: by oracle (sandbox), published by guard." in notes
