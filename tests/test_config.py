from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from saffron import config as configs
from saffron.config import Config, ConfigError

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "config").glob("*.yaml"))


def values(name: str = "sandbox") -> dict[str, Any]:
    return yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    """The sandbox's values with one key set; list items are addressed by index."""
    result = values()
    at: Any = result
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
    at[last] = value
    return result


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_named_after_their_file(path: Path) -> None:
    assert configs.load(path).name == path.stem


def test_every_expected_config_is_shipped() -> None:
    assert {"sandbox", "sandbox-seeds", "smoke", "paper", "paper-1b"} <= {path.stem for path in SHIPPED}


def test_seeds_config_differs_from_the_sandbox_in_name_and_seeds_alone() -> None:
    ours, theirs = values("sandbox-seeds"), values("sandbox")
    assert len(ours["train_seeds"]) == 8
    drawn = [values["sources"]["sandbox"].pop("benchmark_seed") for values in (ours, theirs)]
    assert drawn[0] != drawn[1]  # so that neither run has seen the other's prompts
    assert {key for key in theirs if ours[key] != theirs[key]} == {"name", "train_seeds"}
    assert ours.keys() == theirs.keys()


def test_the_recipe_is_that_of_the_real_models_run_and_reads_no_benchmark() -> None:
    ours, theirs = values("smollm-recipe"), values("smollm")
    assert set(ours["mrm"].pop("variants")) > {"default", "released_recipe"}
    for section in ("runtime", "sources", "models", "safety4m", "mrm", "report"):
        assert ours[section] == theirs[section], section
    shared = ("jobs", "block_size", "prefill_tokens", "max_new_tokens")
    assert all(ours["search"][key] == theirs["search"][key] for key in shared)
    assert {item["dataset"] for item in ours["search"]["experiments"].values()} == {"development"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_resolved_config_reads_back_as_the_same(path: Path) -> None:
    config = configs.load(path)
    assert configs.parse(yaml.safe_load(yaml.safe_dump(configs.as_dict(config))), "resolved") == config


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("serach", {}, ["serach: unknown key", "config/README.md"]),
        ("search.blocksize", 4, ["search.blocksize: unknown key"]),
        ("search.block_size", 0, ["search.block_size", "greater than or equal to 1", "got 0"]),
        ("search.block_size", "16", ["search.block_size", "valid integer", "got '16'"]),
        ("runtime.dtype", "float16", ["runtime.dtype", "'float64', 'float32', 'bfloat16' or 'auto'", "got 'float16'"]),
        ("search.experiments.scaling.runs.0.method", "beams", ["search.experiments.scaling.runs.0.method", "got 'beams'"]),
        (
            "search.experiments.scaling.runs.2.settings",
            {"top_q": 0.5},
            ["experiments.scaling.runs[saffron-default].settings.top_q"],
        ),
        (
            "search.experiments.scaling.runs.2.settings",
            {"mrm": "other"},
            ["run saffron-default uses the MRM other", "mrm.variants"],
        ),
        (
            "search.experiments.exploration.runs",
            [{"method": "rebase", "budgets": [2]}],
            ["Table 1 varies nothing of rebase; remove run rebase-default"],
        ),
        ("search.experiments.scaling.runs.2.method", "best_of_n", ["runs ['best_of_n-default'] stand twice", "settings_id"]),
        ("search.experiments.matched_paper.match.method", "rebase", ["match.method rebase is not among the runs: add it"]),
        ("sources.from", "hub", ["sources.from: unknown key"]),
        ("sources.sandbox", None, ["sources: conversations.from is sandbox: add the section sources.sandbox"]),
        ("sources.prompts.guild_a", {"from": "hub", "id": "a/b"}, ["from is hub: add files, reader"]),
        ("sources.prompts.guild_a", {"from": "path", "path": "x", "reader": "pdf"}, ["no reader 'pdf'; there are columns, "]),
        (
            "sources.prompts.guild_a",
            {"from": "path", "path": "x", "reader": "columns", "settings": {"promt": "a"}},
            ["settings.promt: unknown key"],
        ),
        ("sources.prompts.guild_a", {"from": "sandbox", "path": "x"}, ["from is sandbox, which has no path: remove that"]),
        ("sources.prompts.other", {"from": "sandbox"}, ["prompts.other: no prompt set other there; set part to one of guild_a"]),
        ("sources.prompts.other", {"from": "split", "split": "x"}, ["prompts.other.split: no entry x of sources.splits"]),
        ("sources.prompts", {"a/b": {"from": "sandbox", "part": "guild_a"}}, ["prompts: 'a/b' is no name of a file"]),
        ("sources.prompts", {"{x}": {"from": "sandbox", "part": "guild_a"}}, ["prompts: '{x}' is no name of a file"]),
        (
            "search.experiments.exploration.dataset",
            "a/b",
            ["exploration.dataset: no prompt set a/b; sources.prompts has guild_a, "],
        ),
        (
            "search.experiments.exploration.dataset",
            "{x}",
            ["exploration.dataset: no prompt set {x}; sources.prompts has guild_a, "],
        ),
        (
            "search.experiments.a/b",
            {"dataset": "guild_a", "runs": [{"method": "no_defense", "budgets": [0]}]},
            ["'a/b' is no name"],
        ),
        ("search.experiments.scaling.runs.1.budgets", [1, 10**12], ["budgets of best_of_n must be at most 100,000"]),
        ("models.from", "hub", ["models.from is hub: add the section models.hub"]),
        ("mrm.from", "released", ["mrm.from is released: set mrm.released"]),
        ("mrm.variants", {"other": {}}, ["mrm.variants needs the entry default"]),
        ("analysis.ablations.ablation_bias.runs", ["saffron-default", "saffron-x"], ["ablations has no runs ['saffron-x']"]),
        ("analysis.ablations.ablation_bias.experiment", "other", ["analysis.ablations.ablation_bias: search.experiments.other"]),
        ("mrm.learning_rate", "1e-3", ["mrm.learning_rate: ", "got '1e-3'; YAML reads this as text: write 1.0e-3 ("]),
        ("mrm.checkpoint_every", "1e3", ["mrm.checkpoint_every: ", "got '1e3'; YAML reads this as text: write it out in digits"]),
        ("mrm.learning_rate", "high", ["valid number, got 'high' (allowed values"]),
        (
            "search.experiments.scaling.runs.2.settings",
            {"top_p": "5e-1"},
            ["settings.top_p: Input should be a valid number, got '5e-1'; YAML reads this as text: write 5.0e-1"],
        ),
        ("train_seeds", [], ["train_seeds", "at least 1 item"]),
        ("name", "Sand Box", ["name", "got 'Sand Box'"]),
    ],
)
def test_an_impossible_config_names_the_key_and_the_remedy(path: str, value: Any, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        configs.parse(changed(path, value), "config/x.yaml")
    message = str(error.value)
    assert message.startswith("config/x.yaml: ")
    for part in expected:
        assert part in message


@given(st.from_regex(r"[-+]?[0-9]{1,3}(\.[0-9]{0,3})?[eE][-+]?[0-9]{1,2}", fullmatch=True))
def test_the_remedy_for_a_number_read_as_text_is_that_number(text: str) -> None:
    value = yaml.safe_load(text)
    assume(isinstance(value, str))
    with pytest.raises(ConfigError) as error:
        configs.parse(changed("mrm.learning_rate", value), "config/x.yaml")
    remedy = re.search(r"write (\S+) \(", str(error.value))
    assert remedy is not None and yaml.safe_load(remedy[1]) == float(text)


def test_a_missing_key_names_where_its_meaning_stands() -> None:
    without = values()
    del without["safety4m"]
    with pytest.raises(ConfigError, match=r"safety4m: missing; add it .*config/README.md"):
        configs.parse(without, "config/x.yaml")


def test_every_problem_is_named_at_once() -> None:
    broken = changed("search.block_size", 0) | {"serach": {}}
    with pytest.raises(ConfigError, match=r"2 problem\(s\)"):
        configs.parse(broken, "config/x.yaml")


def test_missing_and_unreadable_files_are_config_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=r"none\.yaml: no such config; config/ holds paper, .*smoke"):
        configs.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"no such config \(did you mean sandbox\?\)"):
        configs.load(tmp_path / "sandbx.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no such config; the shipped ones are in config/ of a checkout"):
        configs.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        configs.load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="must be a mapping"):
        configs.load(tmp_path / "list.yaml")


def test_a_run_overrides_its_methods_defaults() -> None:
    config = configs.parse(changed("search.experiments.scaling.runs.2.settings", {"top_p": 0.5}), "x")
    run = config.search.experiments["scaling"].runs[2]
    assert config.search.settings_of(run).top_p == 0.5  # type: ignore[attr-defined]
    assert config.search.methods.saffron.top_p == 0.8


def test_sections_are_immutable() -> None:
    config: Config = configs.load(ROOT / "config/sandbox.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.search.block_size = 3  # type: ignore[misc]


def _refusals() -> list[tuple[str, Callable[[dict[str, Any]], None], str]]:
    def experiment(values: dict[str, Any]) -> dict[str, Any]:
        return values["search"]["experiments"]["scaling"]

    return [
        ("attack", lambda v: v["search"]["experiments"]["ablations"].update(dataset="benign"), "set attack: false"),
        ("budget", lambda v: experiment(v)["runs"][1].update(budgets=[0]), "must be 1 or more"),
        ("no_defense", lambda v: experiment(v)["runs"][0].update(budgets=[5]), r"budgets must be \[0\]"),
        ("match", lambda v: v["search"]["experiments"]["matched"]["match"].update(budget=31), "match.budget 31 is not among"),
        ("seed", lambda v: v.update(train_seeds=[-1]), "training seeds must be 0 or more and differ"),
        ("seeds", lambda v: v.update(train_seeds=[0, 0]), "training seeds must be 0 or more and differ"),
        ("search seeds", lambda v: v["search"].update(seeds=[0, 0]), "search seeds of experiment"),
        ("heads", lambda v: v["models"]["sandbox"]["policy"].update(heads=3), "hidden_size must be a multiple of heads"),
        ("infinity", lambda v: v["mrm"].update(learning_rate=float("inf")), "finite number"),
        ("nothing to run", lambda v: v["search"].update(experiments={}), "at least 1 item"),
        ("name", lambda v: v.update(name="reference"), "take another name"),
    ]


@pytest.mark.parametrize(("spoil", "message"), [item[1:] for item in _refusals()], ids=[item[0] for item in _refusals()])
def test_what_cannot_be_run_is_refused_before_anything_runs(spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    values = yaml.safe_load((ROOT / "config/sandbox.yaml").read_text())
    spoil(values)
    with pytest.raises(ConfigError, match=message):
        configs.parse(values, "config/made.yaml")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.yaml"
    path.write_text("name: made\nname: other\n")
    with pytest.raises(ConfigError, match="key 'name' stands twice"):
        configs.load(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        configs.load(path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("policy", {"package": "a", "gguf": "a/b.gguf"}, "models.hub.policy.sha256: missing"),
        ("policy", {"package": "a", "gguf": "a/b.gguf", "sha256": "ab"}, "models.hub.policy.sha256: String should match"),
        ("policy", {"id": "a/b", "revison": "x"}, "models.hub.policy.revison: unknown key"),
        ("guard", {"from": "truncated"}, "models.hub.guard.layers: missing"),
        (
            "guard",
            {"layers": 2, "freeze": 2, "training": {"steps": 1, "batch_size": 2, "learning_rate": 0.1}},
            "models.hub.guard: freeze is 2 of 2 layers: nothing would learn; freeze fewer",
        ),
        ("other_guard", {"from": "cut"}, "models.hub.other_guard.from: Input should be 'truncated'"),
    ],
)
def test_a_problem_in_one_kind_of_model_speaks_of_that_kind_alone(key: str, value: Any, expected: str) -> None:
    config = values("paper")
    config["models"]["hub"][key] = value
    with pytest.raises(ConfigError) as error:
        configs.parse(config, "config/x.yaml")
    lines = str(error.value).splitlines()
    assert any(line.strip().startswith(expected) for line in lines), lines
    assert all(line.strip().startswith(f"models.hub.{key}") and "(hub)" not in line for line in lines[1:])
