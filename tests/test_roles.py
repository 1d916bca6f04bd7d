"""Roles of experiments: what each needs, and that nothing else asks for a name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic_results
import yaml

from saffron import config as configs
from saffron import records, roles
from saffron.analysis import claims
from saffron.analysis import stage as analysis
from saffron.analysis.view import View
from saffron.config import ConfigError
from saffron.figures import discovery
from saffron.layout import Layout

ROOT = Path(__file__).parents[1]
Spoil = Callable[[dict[str, Any]], Any]


def values(name: str = "sandbox") -> dict[str, Any]:
    return yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())


def without(name: str, key: str) -> Spoil:
    """Take the runs of a method, or with some settings, out of an experiment."""

    def spoil(experiments: dict[str, Any]) -> None:
        runs = experiments[name]["runs"]
        experiments[name]["runs"] = [run for run in runs if key not in (run["method"], run.get("settings_id"))]

    return spoil


SPOILT: dict[str, tuple[Spoil, str]] = {
    "rebase in exploration": (
        lambda e: e["exploration"]["runs"].append({"method": "rebase", "budgets": [2]}),
        "experiments.exploration: role exploration: Table 1 varies nothing of rebase; remove run rebase-default",
    ),
    "a development without no_defense": (
        without("development", "no_defense"),
        "experiments.development: role development needs a run of no_defense with settings_id default",
    ),
    "a development without the policy unattacked": (
        without("development", "no_attack"),
        "experiments.development: role development needs a run of no_defense with attack: false",
    ),
    "a scaling without best_of_n": (
        without("scaling", "best_of_n"),
        "experiments.scaling: role scaling needs a run of best_of_n with settings_id default",
    ),
    "a scaling of settings that no curve is drawn of": (
        lambda e: e["scaling"]["runs"][3].update(settings_id="other"),
        "experiments.scaling: role scaling draws settings_id default, which rebase lacks",
    ),
    "a scaling that is matched": (
        lambda e: e["scaling"].update(match={"method": "best_of_n", "budget": 32}),
        "experiments.scaling: role scaling shows every budget; leave match out",
    ),
    "matched without a rule": (
        lambda e: e["matched"].pop("match"),
        "experiments.matched: role matched needs the key match",
    ),
    "matched to settings of its own": (
        lambda e: e["matched"]["runs"][1].update(settings_id="other"),
        "experiments.matched: role matched needs a run of best_of_n with settings_id default",
    ),
    "matched per model alone": (
        lambda e: e.pop("matched"),
        "experiments.matched_paper: role matched with convention per_model completes one with convention once",
    ),
    "matched per model on other prompts": (
        lambda e: e["matched_paper"].update(prompts=5),
        "experiments.matched_paper: prompts differs from matched's",
    ),
    "two of a role": (
        lambda e: e["benign"].update(role="exploration", runs=e["exploration"]["runs"], dataset="guild_a"),
        "experiments.benign: role exploration is that of exploration already",
    ),
    "a role that no replication builds": (
        lambda e: e["exploration"].update(group="ablations"),
        "experiments.exploration: role exploration is part of `make replicate`",
    ),
    "section56 without DeepAlign": (
        lambda e: e["deepalign"]["runs"][0].update(policy="policy"),
        "experiments.deepalign: role section56 needs a run of no_defense with policy: deepalign",
    ),
    "section56 on other prompts": (
        lambda e: e["deepalign"].update(dataset="guild_b"),
        "experiments.deepalign: dataset differs from scaling's",
    ),
    "section56 on other search seeds": (
        lambda e: e["scaling"].update(seeds=[3]),
        "experiments.scaling: seeds lack 0, the first of search.seeds",
    ),
    "section56 with a method that scaling lacks": (
        lambda e: (
            [
                e[name]["match"].update(method="deal", budget=2) or without("scaling", "deal")(e)
                for name in ("matched", "matched_paper")
            ]
            and e["matched_paper"]["runs"].append({"method": "deal", "budgets": [2]})
        ),
        "experiments.scaling: section 5.6 shows deal, the method that matched matches; add its run",
    ),
    "nothing to replicate": (
        lambda e: [item.update(group="ablations", role=None) for item in e.values()],
        "search: experiments: none is part of `make replicate`, which then has no results; leave group out of one",
    ),
    "benign under attack": (
        lambda e: e["benign"].update(dataset="guild_a", runs=[{"method": "no_defense", "budgets": [0]}]),
        "experiments.benign: role benign counts refusals of harmless prompts; set attack: false",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_role_that_lacks_what_its_figures_need_is_refused_when_the_config_is_read(name: str) -> None:
    spoil, message = SPOILT[name]
    spoilt = values()
    spoil(spoilt["search"]["experiments"])
    with pytest.raises(ConfigError) as caught:
        configs.parse(spoilt, "config/x.yaml")
    assert message in str(caught.value)


def renamed(config: dict[str, Any]) -> dict[str, Any]:
    """A config whose experiments and prompt sets have other names."""
    config["sources"]["prompts"] = {
        f"set_{number}": {"from": "sandbox", "part": name} for number, name in enumerate(config["sources"]["prompts"])
    }
    sets = {rows["part"]: name for name, rows in config["sources"]["prompts"].items()}
    experiments = config["search"]["experiments"]
    config["search"]["experiments"] = {
        f"run_{number}": {**item, "dataset": sets[item["dataset"]]} for number, item in enumerate(experiments.values())
    }
    return config


def test_analysis_figures_and_tables_ask_for_roles_not_names(tmp_path: Path) -> None:
    """Under any names of experiments and prompt sets, everything is there, and the statements name what was run."""
    shipped = configs.as_dict(synthetic_results.config(prompts=12))
    config = configs.parse(renamed(copy.deepcopy(shipped)), "renamed")
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    analysis.run(config, layout)
    record = records.read_json(layout.analysis / analysis.ANALYSIS)
    wanted = {"gates", "curves", "fits", "matched", "exploration", "quality", "mrm_in_search", "equal_asr"}
    assert wanted <= record.keys() and set(record["matched"]) == {"scaling", "matched"}
    assert all(record["matched"][role][way] for role in record["matched"] for way in ("once", "per_model"))
    statements = " ".join(claim["statement"] for claim in records.read_json_list(layout.analysis / analysis.CLAIMS))
    assert "set_0 in place of Harmful HEx-PHI" in statements and "set_1 in place of Ai2 Refusals" in statements
    view, shown = View.of(config, layout), discovery.exhibits(config)
    usual = discovery.exhibits(configs.parse(shipped | {"name": "usual"}, "usual"))
    assert {name for name in usual if not name.startswith("experiment_")} < shown.keys() and len(usual) == len(shown)
    for exhibit in shown.values():
        if exhibit.group == "replicate":
            exhibit.save(view)
    assert "set_1 (Ai2 Refusals)" in (layout.figures / "table2.csv").read_text()


def test_the_papers_data_are_known_by_their_ids() -> None:
    paper = configs.parse(values("paper"), "paper")
    assert claims.has_paper_models(paper)
    assert roles.named(paper, "On Harmful HEx-PHI.") == "On Harmful HEx-PHI."
    other = values("paper")
    other["sources"]["prompts"]["harmful_hexphi"]["id"] = "someone/prompts"
    mine = configs.parse(other, "mine")
    assert not claims.has_paper_models(mine)
    assert roles.named(mine, "On Harmful HEx-PHI.") == "On harmful_hexphi in place of Harmful HEx-PHI."
    other = values("paper")
    other["sources"]["conversations"]["id"] = "someone/conversations"
    assert not claims.has_paper_models(configs.parse(other, "mine"))
