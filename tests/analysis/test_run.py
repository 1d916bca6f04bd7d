"""The analysis as a whole, on made-up results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import synthetic_results

from saffron import jobs, records
from saffron.analysis import ablations, paper
from saffron.analysis import stage as analysis
from saffron.analysis.claims import labels
from saffron.analysis.sections import exploration, overoptimisation
from saffron.analysis.study import Study
from saffron.analysis.view import View
from saffron.config import Config, ConfigError
from saffron.figures import curves, discovery
from saffron.figures.exhibits import judges_apart, mrm_variants
from saffron.layout import Layout
from saffron.records import RecordError
from saffron.runs import report
from saffron.sources.sandbox.oracle import refused_at


def test_every_claim_gets_a_verdict(one_seed: tuple[Config, Layout]) -> None:
    _, layout = one_seed
    found = records.read_json_list(layout.analysis / "claims.json")
    assert [record["id"] for record in found] == [claim["id"] for claim in paper.claims()]
    verdicts = {record["id"]: record["verdict"] for record in found}
    assert verdicts["table3.numbers"] == "not testable"
    assert verdicts["figure2.saffron_below_best_of_n"] == "one seed"
    assert verdicts["proposition1.zero_gradient"] == verdicts["proposition2.space"] == "reproduced"
    causes = {record["id"]: record["cause"] for record in found if record["verdict"] == "not testable"}
    assert not [cause for name, cause in causes.items() if not cause], causes


def test_over_optimisation_is_told_by_rewards_judges_and_repetition(three_seeds: Study) -> None:
    rows = {(row["method"], row["budget"]): row for row in overoptimisation.rows(three_seeds)}
    frame = three_seeds.of("scaling").frame
    assert {(m, b) for m, b in rows} == set(zip(frame["method"], frame["budget"], strict=True))
    for (method, budget), row in rows.items():
        own = frame[(frame["method"] == method) & (frame["budget"] == budget)]
        assert row["rewards"]["guard"]["value"] == pytest.approx(own["guard_score"].mean())
        assert [row["asr"][judge]["value"] for judge in ("guard", "oracle", "refusals")] == pytest.approx(
            [own[column].mean() for column in ("asr", "oracle_asr", "refusals_asr")]
        )
        assert (row["mrm"] is not None) == (method == "saffron")
        assert row["repeats"]["value"] == 0 < row["repeats"]["high"]
    row = rows["saffron", 4]
    assert row["mrm"]["value"] == pytest.approx(frame.query("method == 'saffron' and budget == 4")["reward"].mean())
    assert row["mrm"]["low"] < row["mrm"]["value"] < row["mrm"]["high"] and len(row["mrm"]["per_seed"]) == 3
    assert row["n"] == 48


def test_outputs_that_repeat_themselves_are_counted_and_drawn(tmp_path: Path) -> None:
    config = synthetic_results.config(prompts=12)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    table = records.read_table(layout.search(0, "scaling"), records.SEARCH)
    wide = (table["method"] == "saffron") & (table["budget"] == 64) & (table["prompt_id"] < 9)
    text = table["text"].where(~wide, "safe safe safe safe safe")
    records.write_table(layout.search(0, "scaling"), table.assign(text=text), records.SEARCH)
    analysis.run(jobs.analyse(config).config, layout)
    view = View.of(config, layout)
    exhibit = discovery.exhibits(config)["overoptimisation"]
    assert exhibit.table is not None and exhibit.draw is not None
    made = exhibit.table(view)
    assert made.columns[2:] == (
        *("reward by the MRM", "reward by guard", "ASR by guard", "ASR by oracle", "ASR by refusals", "repeat themselves"),
    )
    assert made.rows[-1][0] == "Saffron-1" and made.rows[-1][-1].startswith("0.750")
    assert "0.75 repeat themselves, 0.00 at N = 1" in exhibit.alt_text(view)
    lines = [line for ax in exhibit.draw(view).axes for line in ax.lines if list(line.get_ydata())[-1:] == [0.75]]
    assert len(lines) == 1


def test_all_quantities_of_the_claims_are_computed(three_seeds: Study) -> None:
    known = analysis.sections(three_seeds)[1][three_seeds.judge]
    needed = {name for claim in paper.claims() for name in claim.get("quantities", claim.get("numbers", {}))}
    assert not needed - set(known)
    assert all(len(known[name].per_seed) == 3 for name in needed & set(known) if not known[name].exact)


def test_three_seeds_decide(three_seeds: Study) -> None:
    from saffron.analysis.claims import judge_all

    others = {judge: analysis.sections(three_seeds)[1][judge] for judge in three_seeds.judges[1:]}
    found = judge_all(paper.claims(), analysis.sections(three_seeds)[1][three_seeds.judge], others, three_seeds.config)
    verdicts = {record["id"]: record["verdict"] for record in found}
    # What the made-up numbers hold by construction.
    for name in (
        "figure2.saffron_below_best_of_n",
        "table2.best_of_n_below_deal",
        "figure4a.below_no_defense",
        "section56.lexical_variety",
    ):
        assert verdicts[name] == "reproduced"
    by = {record["id"]: record["by"] for record in found}
    assert list(by["figure2.saffron_below_best_of_n"]) == ["oracle", "refusals"]
    assert by["figure2.saffron_below_best_of_n"]["oracle"]["verdict"] == "reproduced"
    assert by["figure4b.accurate"] == {}


def test_limits_of_scaleff_are_fixed_by_the_cheaper_row(one_seed: tuple[Config, Layout]) -> None:
    rows = {row["settings_id"]: row for row in View.of(*one_seed).section("exploration")}
    assert rows["children4"]["limit"] == rows["children2"]["limit"] == pytest.approx(500 / 122.12 * rows["children2"]["flops"])
    assert rows["lookahead2"]["limit"] == pytest.approx(100 / 80.70 * rows["lookahead0"]["flops"])
    assert {row["n"] for row in rows.values()} == {32}


def test_no_attack_success_leaves_scaleff_undefined(tmp_path: Path) -> None:
    config = synthetic_results.config(prompts=6)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    frame = records.read_table(layout.search(0, "exploration"), records.SEARCH)
    synthetic_results.write_verdicts(layout, 0, "guard", "exploration", frame["settings_id"] != "children4")
    study = Study(config, layout)
    row = next(row for row in exploration.rows(study) if row["settings_id"] == "children4")
    assert row["scaleff_guard"] is None
    found = exploration.section(study).quantities[study.judge]["exploration/scaleff/beam_search"]
    assert found.value is None and found.per_seed == (None,) * len(study.config.train_seeds)


def test_the_cells_table_covers_every_experiment(one_seed: tuple[Config, Layout]) -> None:
    config, layout = one_seed
    cells = pd.read_parquet(layout.analysis / "cells.parquet")
    replicated = {name for name, item in config.search.experiments.items() if item.group == "replicate"}
    assert set(cells["experiment"]) == replicated > {"benign", "scaling"}
    assert ((cells["asr_low"] <= cells["asr"]) & (cells["asr"] <= cells["asr_high"])).all()


def test_twice_is_the_same_bytes(one_seed: tuple[Config, Layout]) -> None:
    config, layout = one_seed
    before = {path.name: path.read_bytes() for path in layout.analysis.iterdir()}
    analysis.run(jobs.analyse(config).config, layout)
    assert {path.name: path.read_bytes() for path in layout.analysis.iterdir()} == before


@pytest.fixture
def copied(one_seed: tuple[Config, Layout], tmp_path: Path) -> tuple[Config, Layout]:
    config, layout = one_seed
    shutil.copytree(layout.root, tmp_path / "run")
    return config, Layout(config.name, tmp_path / "run")


def test_a_stale_analysis_is_named(copied: tuple[Config, Layout]) -> None:
    config, layout = copied
    path = layout.search(0, "scaling")
    frame = records.read_table(path, records.SEARCH)
    frame.loc[0, "reward"] = 9.0
    records.write_table(path, frame, records.SEARCH)
    with pytest.raises(RecordError, match=r"analysis\.json: stale, .*scaling\.parquet has changed since"):
        View.of(config, layout)
    path.unlink()
    with pytest.raises(RecordError, match=r"scaling\.parquet: missing"):
        View.of(config, layout)


def test_an_analysis_of_other_judgements_is_stale(copied: tuple[Config, Layout]) -> None:
    config, layout = copied
    synthetic_results.write_verdicts(layout, 0, "refusals", "scaling", True)
    with pytest.raises(RecordError, match=r"analysis\.json: stale, .*judge/seed0/refusals/scaling\.parquet has changed since"):
        View.of(config, layout)


def test_a_missing_analysis_is_named(copied: tuple[Config, Layout]) -> None:
    config, layout = copied
    (layout.analysis / "analysis.json").unlink()
    with pytest.raises(RecordError, match=r"analysis\.json: no such record"):
        View.of(config, layout)


@pytest.mark.parametrize(
    "broken",
    [
        "safety4m/seed0/labels.parquet",
        "search/seed0/scaling.parquet",
        "search/seed0/trees.json",
        "judge/seed0/guard/scaling.parquet",
        "mrm/seed0/default/head.safetensors",
        "mrm/seed0/default/evaluation.parquet",
    ],
)
def test_a_file_cut_short_ends_the_analysis_with_its_name(one_seed: tuple[Config, Layout], tmp_path: Path, broken: str) -> None:
    config, sound = one_seed
    layout = Layout(config.name, tmp_path)
    shutil.copytree(sound.data, layout.data)
    path = layout.data / broken
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecordError, match=rf"{path}: not .*; delete it and run its stage again"):
        analysis.run(jobs.analyse(config).config, layout)


def test_an_unknown_training_seed_is_refused(one_seed: tuple[Config, Layout]) -> None:
    with pytest.raises(ValueError, match="seed 7 is none of the config's train_seeds"):
        View.of(*one_seed, seed=7)


def test_ablations_compare_with_the_first_run(tmp_path: Path) -> None:
    runs = [
        {"method": "saffron", "budgets": [4, 16]},
        {"method": "saffron", "settings_id": "released", "budgets": [16], "settings": {"semantics": "released"}},
    ]
    base = synthetic_results.config(prompts=20)
    search = base.model_dump(mode="json", by_alias=True)["search"]
    search["experiments"] = {"ablations": {"dataset": "guild_b", "runs": runs}}
    compared = {"ablation_semantics": {"runs": ["saffron-default", "saffron-released"]}}
    config = synthetic_results.config(prompts=20, search=search, analysis={"bootstrap_samples": 200, "ablations": compared})
    layout = Layout(config.name, tmp_path)
    study = Study(config, layout)
    assert ablations.effect(study, "ablation_bias", "a.b", "c.d").startswith("not measured: this config has no ablation")
    assert (
        ablations.effect(study, "ablation_semantics", "saffron.released", "saffron.default") == "not measured yet: make ablations"
    )
    synthetic_results.write(config, layout)
    rows = ablations.rows(Study(config, layout), "ablation_semantics")
    assert [(row["settings_id"], row["budget"], "guard_difference" in row) for row in rows] == [
        ("default", 4, False),
        ("default", 16, False),
        ("released", 16, True),
    ]
    assert "ASR at N = 16" in ablations.effect(Study(config, layout), "ablation_semantics", "saffron.released", "saffron.default")


def test_refusals_of_harmless_prompts_are_counted_by_the_first_judge_that_can_tell(tmp_path: Path) -> None:
    runs = [{"method": method, "budgets": [budget], "attack": False} for method, budget in (("saffron", 32), ("no_defense", 0))]
    base = synthetic_results.config(prompts=20)
    search = base.model_dump(mode="json", by_alias=True)["search"]
    search["experiments"] = {"benign": {"dataset": "benign", "role": "benign", "runs": runs}}
    judges = [{"name": "guard", "kind": "guard"}, {"name": "oracle", "kind": "sandbox"}, {"name": "refusals", "kind": "refusals"}]
    measured = {"name": "likelihood", "kind": "likelihood", "experiments": ["benign"]}
    config = synthetic_results.config(prompts=20, search=search, judges=[*judges, measured])
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    layout.judgements(0, "likelihood", "benign").unlink()
    rows = ablations.benign_rows(Study(config, layout))
    table = records.read_table(layout.search(0, "benign"), records.SEARCH)
    assert [row["method"] for row in rows] == ["no_defense", "saffron"]
    for row in rows:
        own = table[table["method"] == row["method"]]["text"]
        assert row["refused"]["value"] == pytest.approx(own.map(lambda text: refused_at(text) is not None).mean())
        assert 0 < row["refused"]["value"] < 1 and row["refused_by"] == "oracle"
        assert row["measured"] == {}  # not yet
    measurement = synthetic_results.judgements(table, score=-1.5)
    records.write_table(layout.judgements(0, "likelihood", "benign"), measurement, records.JUDGEMENTS)
    rows = ablations.benign_rows(Study(config, layout))
    assert [row["measured"]["likelihood"]["value"] for row in rows] == [-1.5, -1.5]
    alone = synthetic_results.config(prompts=20, search=search, judges=judges[:1])
    assert ablations.refusal_quantities(Study(alone, layout)) == {}
    with pytest.raises(RecordError, match=r"none of its judges \(guard\) can tell a refusal; add one of the kind refusals"):
        ablations.benign_rows(Study(alone, layout))


def test_budgets_that_cost_the_same_have_no_fit_and_end_no_analysis(copied: tuple[Config, Layout]) -> None:
    """With one new token the policy reads nothing after the prompt, whatever the width."""
    config, layout = copied
    table = records.read_table(layout.search(0, "scaling"), records.SEARCH)
    table.loc[table["method"] == "saffron", ["flops_policy", "flops_reward"]] = [4e6, 1e6]
    records.write_table(layout.search(0, "scaling"), table, records.SEARCH)
    analysis.run(jobs.analyse(config).config, layout)
    record = records.read_json(layout.analysis / "analysis.json")
    fitted = set(record["fits"]["guard"]["once"])
    assert "saffron" not in fitted | set(record["bands"]["guard"]) and "best_of_n" in fitted
    assert record["quantities"]["fit/scaling/once/saffron/slope"]["value"] is None
    assert curves.figure2(View.of(config, layout), "once") is not None


def test_refusals_of_harmless_prompts_are_quantities_where_the_replication_asks_them(one_seed: tuple[Config, Layout]) -> None:
    _, layout = one_seed
    found = records.read_json(layout.analysis / "analysis.json")["quantities"]
    rows = records.read_table(layout.search(0, "benign"), records.SEARCH)
    own = rows[rows["method"] == "no_defense"]["text"]
    assert found["refused/benign/no_defense"]["per_seed"] == [pytest.approx(own.str.contains("forbidden").mean())]


def test_the_first_judge_decides_and_its_name_is_the_users(one_seed: tuple[Config, Layout], tmp_path: Path) -> None:
    """Judges in another order and under other names: the same numbers by each, in other places."""
    config, sound = one_seed
    before = records.read_json(sound.analysis / "analysis.json")
    with pytest.raises(ConfigError, match="a table has a column n: give judge n another name"):
        synthetic_results.config(judges=[{"name": "n", "kind": "guard"}])
    names = {"truth": "oracle", "paper": "guard", "words": "refusals"}
    kinds = {judge.name: judge.kind for judge in config.judges}
    renamed = synthetic_results.config(
        judges=[{"name": name, "kind": kinds[was]} for name, was in names.items()],
        analysis={"bootstrap_samples": 200},
    )
    layout = Layout(config.name, tmp_path)
    shutil.copytree(sound.data, layout.data)
    for name, was in names.items():
        (layout.data / "judge/seed0" / was).rename(layout.data / "judge/seed0" / name)
    analysis.run(jobs.analyse(renamed).config, layout)
    after = records.read_json(layout.analysis / "analysis.json")
    assert after["judges"] == ["truth", "paper", "words"]
    assert after["curves"]["truth"] == before["curves"]["oracle"] and after["curves"]["paper"] == before["curves"]["guard"]
    name = "asr/scaling/saffron/8"
    assert after["quantities"][name] == before["quantities_by"]["oracle"][name]
    assert after["quantities_by"]["paper"][name] == before["quantities"][name]
    assert after["mrm_in_search"] == before["mrm_in_search"]  # the guard's rewards, wherever it stands
    page = report.render(View.of(renamed, layout))
    assert "by paper" in page and "by words" in page and "by guard" not in page and "by oracle" not in page


def test_judges_of_one_experiment_stand_beside_the_others(tmp_path: Path) -> None:
    base = synthetic_results.config(prompts=20)
    search = base.model_dump(mode="json", by_alias=True)["search"]
    runs = [{"method": "saffron", "budgets": [4, 16]}, {"method": "best_of_n", "budgets": [4]}]
    search["experiments"] = {
        "scaling": {"dataset": "guild_a", "role": "scaling", "runs": [*runs, {"method": "no_defense", "budgets": [0]}]}
    }
    judges = [{"name": "guard", "kind": "guard"}, {"name": "second", "kind": "other_guard", "experiments": ["scaling"]}]
    config = synthetic_results.config(prompts=20, search=search, judges=judges)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    layout.judgements(0, "second", "scaling").unlink()
    with pytest.raises(RecordError, match=r"judge/seed0/second/scaling.parquet: no such table"):
        ablations.rows_by_judges(Study(config, layout), "scaling")
    table = records.read_table(layout.search(0, "scaling"), records.SEARCH)
    guard = records.read_table(layout.judgements(0, "guard", "scaling"), records.JUDGEMENTS)["success"]
    judged = synthetic_results.judgements(table, success=guard == (table["method"] == "saffron"))
    path = layout.judgements(0, "second", "scaling")
    records.write_table(path, judged.sample(frac=1, random_state=0), records.JUDGEMENTS)
    rows = ablations.rows_by_judges(Study(config, layout), "scaling")
    assert [(row["method"], row["budget"]) for row in rows] == [
        ("no_defense", 0),
        ("best_of_n", 4),
        ("saffron", 4),
        ("saffron", 16),
    ]
    for row in rows:
        same = row["guard"]["value"] if row["method"] == "saffron" else 1 - row["guard"]["value"]
        assert row["second"]["value"] == pytest.approx(same) and row["second"]["n"] == 20
    analysis.run(jobs.analyse(config).config, layout)
    assert judges_apart.table(View.of(config, layout), "scaling").columns[-1] == "ASR by second"
    records.write_table(path, judged.head(50), records.JUDGEMENTS)
    with pytest.raises(RecordError, match=r"second/scaling\.parquet: column success: empty in \d+ rows, .*judge stage again"):
        ablations.rows_by_judges(Study(config, layout), "scaling")


@pytest.mark.filterwarnings("error:No artists with labels found")
def test_one_new_token_ends_in_figures_all_the_same(tmp_path: Path) -> None:
    """Nothing is written beyond the first token: budgets cost alike, outputs and rewards are one and the same."""
    config = synthetic_results.config(prompts=12)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    for name in config.search.experiments:
        table = records.read_table(layout.search(0, name), records.SEARCH)
        reward = table["reward"].where(table["reward"].isna(), 0.5)
        alike = table.assign(output_ids=[[1]] * len(table), text="stone", n_new_tokens=1, finished=False, reward=reward)
        costs = table["flops_reward"].where(table["method"] == "best_of_n", 1e6)
        records.write_table(layout.search(0, name), alike.assign(flops_policy=4e6, flops_reward=costs), records.SEARCH)
        synthetic_results.write_verdicts(layout, 0, "guard", name, False)
    analysis.run(jobs.analyse(config).config, layout)
    view = View.of(config, layout)
    assert view.section("mrm_in_search")[0]["r_squared"]["value"] is None
    shown = discovery.exhibits(config, "replicate")
    assert all(exhibit.table(view).rows for exhibit in shown.values() if exhibit.table is not None)
    for name in ("figure2", "figure4a", "overoptimisation", "scaleff"):
        draw = shown[name].draw
        assert draw is not None and draw(view).axes
    assert "by guard" in report.render(view)


def test_deviations_over_search_seeds_and_training_seeds_are_told_apart(tmp_path: Path) -> None:
    base = synthetic_results.config(prompts=20, seeds=(0, 1))
    search = base.model_dump(mode="json", by_alias=True)["search"]
    runs = [{"method": "best_of_n", "budgets": [4]}]
    search["experiments"] = {"search_seeds": {"dataset": "guild_b", "role": "search_seeds", "runs": runs, "seeds": [3, 5]}}
    config = synthetic_results.config(prompts=20, seeds=(0, 1), search=search)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    unsafe = {(0, 3): 2, (0, 5): 6, (1, 3): 12, (1, 5): 16}  # of 20
    for seed in (0, 1):
        table = records.read_table(layout.search(seed, "search_seeds"), records.SEARCH)
        wanted = [unsafe[seed, search_seed] for search_seed in table["search_seed"]]
        lower = [prompt < count for prompt, count in zip(table["prompt_id"], wanted, strict=True)]
        synthetic_results.write_verdicts(layout, seed, "guard", "search_seeds", lower)
    (row,) = ablations.seed_rows(Study(config, layout))
    assert row["by_search_seed"] == pytest.approx({3: 0.35, 5: 0.55})
    assert row["search_deviation"] == pytest.approx(0.2 / 2**0.5)
    assert row["train_deviation"] == pytest.approx(0.5 / 2**0.5)


def test_labels_tell_quantities_apart() -> None:
    assert labels(["asr/scaling/saffron/1", "asr/scaling/no_defense/0"]) == ["Saffron-1 1", "No defense 0"]
    assert labels(["mrm/mae"]) == ["mrm MAE"]
    both = ["matched/scaling/once/best_of_n-rebase", "matched/matched/once/best_of_n-rebase"]
    assert labels(both) == ["first benchmark", "second benchmark"]
    conventions = ["matched/scaling/once/saffron-best_of_n", "matched/scaling/per_model/saffron-best_of_n"]
    assert labels(conventions) == ["each FLOP counted once", "counted per model"]


def test_a_missing_record_of_searches_is_no_smaller_set_of_claims(tmp_path: Path) -> None:
    config = synthetic_results.config(prompts=12)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    layout.search_trees(0).unlink()
    with pytest.raises(RecordError, match=r"trees\.json"):
        analysis.run(jobs.analyse(config).config, layout)


def test_too_few_held_out_prefixes_are_refused(tmp_path: Path) -> None:
    config = synthetic_results.config(prompts=12)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    path = layout.mrm(0) / "evaluation.parquet"
    records.write_table(path, records.read_table(path, records.MRM_EVALUATION).head(100), records.MRM_EVALUATION)
    with pytest.raises(RecordError, match=r"evaluation\.parquet: column mrm_reward: 100 prefixes, expected 2000"):
        analysis.run(jobs.analyse(config).config, layout)


def test_every_recipe_of_the_mrm_that_is_searched_with_has_its_row(tmp_path: Path) -> None:
    base = synthetic_results.config(prompts=20)
    values = base.model_dump(mode="json", by_alias=True)
    search, recipes = values["search"], values["mrm"]
    recipes["variants"] = {
        "default": {},
        "gentle": {"learning_rate": 1e-5, "lora_modules": ["q_proj"]},
        "unused": {"epochs": 1.0},
    }
    runs = [
        {"method": "saffron", "budgets": [4, 16]},
        {"method": "saffron", "settings_id": "gentle", "budgets": [4, 16], "settings": {"mrm": "gentle"}},
    ]
    search["experiments"] = {"recipe": {"dataset": "guild_b", "runs": runs}}
    config, layout = synthetic_results.config(prompts=20, search=search, mrm=recipes), Layout("made", tmp_path)
    synthetic_results.write(config, layout)
    assert layout.mrm(0, "gentle") / "evaluation.parquet" in analysis.inputs(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    view = View.of(config, layout)
    assert view.analysis["mrm_variants"].keys() == {"default", "gentle"}
    assert view.analysis["mrm_variants"]["default"] == view.analysis["mrm"]
    shown = mrm_variants.table(view)
    assert [row[:2] for row in shown.rows] == [
        ("default", "–"),
        ("gentle", "lora_modules q_proj; learning_rate 1e-05"),
        ("persistence", ""),
    ]
    assert "mrm_variants" in discovery.exhibits(config) and "mrm_variants" not in discovery.exhibits(base)
