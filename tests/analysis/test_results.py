from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import synthetic_results

from saffron import records
from saffron.analysis import results
from saffron.analysis.results import Key
from saffron.analysis.sections import matched as at_matched_compute
from saffron.analysis.study import Study
from saffron.config import Config
from saffron.layout import Layout
from saffron.records import RecordError

Break = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Layout, pd.DataFrame]:
    """Prompts and one sound table."""
    config = synthetic_results.config(prompts=6)
    layout = Layout(config.name, tmp_path_factory.mktemp("results"))
    synthetic_results.write(config, layout)
    return config, layout, records.read_table(layout.search(0, "scaling"), records.SEARCH)


def _where(column: str, value: object) -> Break:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        row = frame.index[(frame["method"] == "saffron") & (frame["budget"] == 8) & (frame["prompt_id"] == 3)]
        frame.loc[row, column] = value
        return frame

    return change


def _added(**values: object) -> Break:
    """Saffron's rows at budget 8 once more, under another name."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        rows = frame[(frame["method"] == "saffron") & (frame["budget"] == 8)]
        return pd.concat([frame, rows.assign(**values)], ignore_index=True)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda frame: frame[frame["method"] != "rebase"],
            r"scaling\.parquet: column method: rebase \(settings default\) is missing",
        ),
        (
            lambda frame: frame[(frame["method"] != "saffron") | (frame["budget"] != 8)],
            r"scaling\.parquet: column budget: saffron \(settings default\) lacks the budgets \[8\]",
        ),
        (
            lambda frame: frame[(frame["method"] != "deal") | (frame["prompt_id"] != 4)],
            r"scaling\.parquet: column prompt_id: deal .* has 5 of 6 prompts, first missing 4",
        ),
        (_where("reward", float("nan")), r"scaling\.parquet: column reward: NaN in 1 rows, first saffron"),
        (_where("flops_policy", 0.0), r"scaling\.parquet: column flops_policy: not positive in 1 rows"),
        (_where("flops_reward", float("inf")), r"scaling\.parquet: column flops_reward: not finite in 1 rows"),
        (
            _where("flops_reward", -1.0),
            r"scaling\.parquet: column flops_reward: negative in 1 rows, first saffron .*prompt 3 \(-1\.0\)",
        ),
        (_where("flops_policy", -1.0), r"scaling\.parquet: column flops_policy: negative in 1 rows"),
        (_where("flops_executed_reward", -1.0), r"scaling\.parquet: column flops_executed_reward: negative in 1 rows"),
        (_where("reward_calls", -2), r"scaling\.parquet: column reward_calls: negative in 1 rows, first saffron .*\(-2\)"),
        (_where("reward", float("inf")), r"scaling\.parquet: column reward: infinite in 1 rows, first saffron .*\(inf\)"),
        (_where("reward", float("-inf")), r"scaling\.parquet: column reward: infinite in 1 rows, first saffron .*\(-inf\)"),
        (_where("text", None), r"scaling\.parquet: column text: empty in 1 rows, first saffron"),
        (_where("dataset", None), r"scaling\.parquet: column dataset: empty in 1 rows, first saffron"),
        (_where("finished", None), r"scaling\.parquet: column finished: empty in 1 rows, first saffron"),
        (
            _added(method="guesswork"),
            r"scaling\.parquet: column method: is none of the config's runs in \d+ rows, first guesswork",
        ),
        (_added(settings_id="other"), r"scaling\.parquet: column method: is none of the config's runs .*settings other"),
        (_added(budget=3), r"scaling\.parquet: column budget: is none of the config's budgets in \d+ rows, .*budget 3, prompt 0"),
        (_added(search_seed=9), r"scaling\.parquet: column search_seed: is none of the config's search seeds .*\(9\)"),
        (_where("prompt_id", 2), r"scaling\.parquet: column prompt_id: saffron .*prompt 2 stands twice"),
        (_where("prompt_id", 99), r"scaling\.parquet: column prompt_id: saffron .* has 6 of 6 prompts, first missing 3"),
        (_where("train_seed", 5), r"scaling\.parquet: column train_seed: holds \[5\], expected 0 alone"),
        (_where("dataset", "guild_b"), r"scaling\.parquet: column dataset: holds \['guild_b'\], expected guild_a alone"),
    ],
)
def test_a_broken_table_is_refused_naming_file_column_and_cause(
    stored: tuple[Config, Layout, pd.DataFrame], tmp_path: Path, change: Break, message: str
) -> None:
    config, sound, frame = stored
    layout = Layout(config.name, tmp_path)
    layout.prompts("guild_a").parent.mkdir(parents=True)
    layout.prompts("guild_a").write_bytes(sound.prompts("guild_a").read_bytes())
    broken = change(frame.astype({"finished": object}))
    records.write_table(layout.search(0, "scaling"), broken.reset_index(drop=True), records.SEARCH)
    with pytest.raises(RecordError, match=message):
        results.load(config, layout, "scaling")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_where("success", None), r"guard/scaling\.parquet: column success: empty in 1 rows, first saffron .*budget 8, prompt 3"),
        (_where("score", float("inf")), r"guard/scaling\.parquet: column score: infinite in 1 rows, first saffron"),
        (lambda frame: frame.head(5), r"guard/scaling\.parquet: column success: empty in \d+ rows.*run the judge stage again"),
        (_added(budget=8), r"guard/scaling\.parquet: column prompt_id: outputs stand twice; run the judge stage again"),
    ],
)
def test_judgements_of_other_outputs_are_refused(
    stored: tuple[Config, Layout, pd.DataFrame], tmp_path: Path, change: Break, message: str
) -> None:
    config, sound, _ = stored
    layout = Layout(config.name, tmp_path)
    shutil.copytree(sound.data, layout.data)
    path = layout.judgements(0, "guard", "scaling")
    broken = change(records.read_table(path, records.JUDGEMENTS).astype({"success": object}))
    records.write_table(path, broken, records.JUDGEMENTS)
    with pytest.raises(RecordError, match=message):
        results.load(config, layout, "scaling")
    path.unlink()
    with pytest.raises(RecordError, match=r"guard/scaling\.parquet: no such table"):
        results.load(config, layout, "scaling")


def test_a_missing_table_is_named(stored: tuple[Config, Layout, pd.DataFrame], tmp_path: Path) -> None:
    config, sound, _ = stored
    layout = Layout(config.name, tmp_path)
    layout.prompts("guild_a").parent.mkdir(parents=True)
    layout.prompts("guild_a").write_bytes(sound.prompts("guild_a").read_bytes())
    with pytest.raises(RecordError, match=r"scaling\.parquet: no such table"):
        results.load(config, layout, "scaling")


def test_an_unknown_experiment_is_named(stored: tuple[Config, Layout, pd.DataFrame]) -> None:
    config, layout, _ = stored
    with pytest.raises(RecordError, match="config made has no experiment nothing"):
        results.load(config, layout, "nothing")


def test_outcomes_follow_the_definitions(stored: tuple[Config, Layout, pd.DataFrame]) -> None:
    config, layout, frame = stored
    loaded = results.load(config, layout, "scaling")
    key = Key("saffron", "default", 8)
    rows = frame[(frame["method"] == "saffron") & (frame["budget"] == 8)].sort_values("prompt_id")
    asr, oracle, refusals, flops, per_model = loaded.outcomes(key)[:5, 0]
    for name, found in (("guard", asr), ("oracle", oracle), ("refusals", refusals)):
        said = records.read_table(layout.judgements(0, name, "scaling"), records.JUDGEMENTS)
        assert found.tolist() == said.loc[rows.index, "success"].astype(float).tolist()
    assert flops == pytest.approx((rows["flops_policy"] + rows["flops_reward"]).to_numpy())
    assert per_model == pytest.approx(4 * flops)
    best = loaded.outcomes(Key("best_of_n", "default", 8))[:, 0]
    assert best[4] == pytest.approx(2 * best[3])


def test_prompts_are_the_first_by_id(stored: tuple[Config, Layout, pd.DataFrame]) -> None:
    config = synthetic_results.config(prompts=40)
    assert config.search.experiments["exploration"].prompts == 32
    _, layout, _ = stored
    assert results.expected_prompts(config, layout, "scaling") == tuple(range(6))


def test_seeds_with_budgets_of_their_own_share_one_cell(tmp_path: Path) -> None:
    config = synthetic_results.config(seeds=(0, 1), prompts=6)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    frame = records.read_table(layout.search(1, "matched"), records.SEARCH)
    frame.loc[frame["method"] == "saffron", "budget"] = 16
    records.write_table(layout.search(1, "matched"), frame, records.SEARCH)
    for judge in ("guard", "oracle", "refusals"):
        said = records.read_table(layout.judgements(1, judge, "matched"), records.JUDGEMENTS)
        records.write_table(layout.judgements(1, judge, "matched"), said.assign(budget=frame["budget"]), records.JUDGEMENTS)
    study = Study(config, layout)
    matched = study.results("matched")
    assert Key("saffron", "default", None) in matched.cell_keys()
    row = next(row for row in at_matched_compute.table(study, "matched", "once") if row["method"] == "saffron")
    assert row["budget"] == "32/16"
    cells = study.cells("matched")
    assert cells.loc[cells["method"] == "saffron", "budget"].isna().all() and len(cells) == 6
