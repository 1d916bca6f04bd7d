from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from saffron import cli, models
from saffron.config import ConfigError, Runtime
from saffron.records import RecordError
from saffron.runs import gpus

ROOT = Path(__file__).parents[1]
COMMANDS = ["sources", "models", "safety4m", "mrm", "search", "analysis", "figures", "plan", "validate"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "saffron.cli", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_help_lists_every_stage() -> None:
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.output


@pytest.mark.parametrize(
    "command",
    [
        ["sources"],
        *(["models", name] for name in ("tokenizer", "policy", "guard", "deepalign")),
        *(["safety4m", name] for name in ("label", "gather")),
        *(["mrm", name] for name in ("train", "evaluate", "export")),
        *(["search", name] for name in ("run", "part", "gather", "all", "trees")),
        ["judge"],
        ["analysis"],
        *(["figures", name] for name in ("notebook", "check", "report", "all")),
        ["plan"],
        ["power"],
    ],
    ids=" ".join,
)
def test_every_command_explains_its_options(command: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "--config" in result.output
    assert "--out" in result.output


def test_startup_loads_no_heavy_library() -> None:
    code = (
        "import sys, saffron.cli; print([name for name in ('torch', 'transformers', 'datasets', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "saffron.sources.stage",
        "saffron.models.sandbox.vocabulary",
        "saffron.safety4m",
        "saffron.search.gathering",
        "saffron.analysis",
        "saffron.figures.notebooks",
        "saffron.runs.report",
        "saffron.runs.provenance",
        "saffron.runs.publish",
        "saffron.runs.plan",
    ],
)
def test_a_command_that_runs_no_model_loads_no_torch(module: str) -> None:
    """It takes seconds to import, which is more than these commands compute."""
    code = f"import sys, {module}; print([name for name in ('torch', 'datasets', 'peft', 'accelerate') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    ["saffron.figures.notebooks", "saffron.figures.discovery", "saffron.jobs", "saffron.runs.provenance", "saffron.records"],
)
def test_a_notebooks_process_and_the_record_of_times_load_no_pandas(module: str) -> None:
    """A page of tables alone draws nothing."""
    code = f"import sys, {module}; print([name for name in ('pandas', 'matplotlib') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_searching_and_reading_an_mrm_load_no_training_library() -> None:
    code = "import sys, saffron.search.runner, saffron.search.trees, saffron.mrm.model, saffron.mrm.targets\n"
    code += "print([name for name in ('peft', 'datasets', 'sklearn') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_figures_and_tables_of_a_config_are_listed_by_page() -> None:
    result = run("figures", "list", "--config", "config/smoke.yaml")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["table1", "table1", "csv", "md", "tex", "replicate", "Table", "1:"] in [line[:8] for line in lines]
    assert ["scaleff", "pdf", "png", "replicate"] in [line[:4] for line in lines]  # on the same page


def test_an_unknown_figure_is_named_with_the_known_ones(tmp_path: Path) -> None:
    result = run("figures", "notebook", "figure9", "--config", "config/smoke.yaml", "--out", str(tmp_path))
    assert result.returncode == 2 and "no figure or table figure9; there are claims, compute_ratios," in result.stderr


def test_a_figure_is_asked_for_by_its_own_name(tmp_path: Path) -> None:
    """Whatever page makes it: `make figure NAME=scaleff` draws the page of table1."""
    for name, page in (("scaleff", "table1"), ("table1", "table1"), ("experiment_scaling", "experiments")):
        assert run("figures", "page", name, "--config", "config/smoke.yaml").stdout.strip() == page
    result = run("figures", "page", "figure9", "--config", "config/smoke.yaml")
    assert result.returncode == 2 and "no figure or table figure9; there are claims, compute_ratios," in result.stderr
    assert "figures page $(NAME)" in (ROOT / "Makefile").read_text()


def test_an_unknown_part_is_named_with_the_known_ones() -> None:
    result = run("search", "part", "--config", "config/sandbox.yaml", "--part", "guard")
    assert result.returncode == 2
    assert "--part guard: the experiment group replicate has early-policy, policy, policy-default, match" in result.stderr


def test_a_config_error_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nserach: {}\n")
    result = run("validate", "--config", str(tmp_path / "x.yaml"))
    assert result.returncode == 2
    assert result.stdout == ""
    assert "serach: unknown key" in result.stderr
    assert "Traceback" not in result.stderr


def test_validating_says_which_local_path_is_missing(tmp_path: Path) -> None:
    values = yaml.safe_load(Path("config/paper.yaml").read_text(encoding="utf-8"))
    values["sources"]["prompts"]["ai2_refusals"] = {"from": "path", "path": str(tmp_path / "rows.csv"), "reader": "columns"}
    values["models"]["hub"]["guard"] = {"id": "a/b", "path": str(tmp_path / "guard")}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    result = run("validate", "--config", str(tmp_path / "x.yaml"))
    assert result.returncode == 2
    assert f"sources.prompts.ai2_refusals.path: no file or folder {tmp_path}/rows.csv" in result.stderr
    assert f"models.hub.guard.path: no folder {tmp_path}/guard" in result.stderr
    (tmp_path / "rows.csv").touch()
    (tmp_path / "guard").mkdir()
    assert run("validate", "--config", str(tmp_path / "x.yaml")).returncode == 0


def test_a_missing_input_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    result = run("analysis", "--config", "config/smoke.yaml", "--out", str(tmp_path))
    assert result.returncode == 2
    assert str(tmp_path) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"__name__": "saffron.stand_in"}
    exec("def broken():\n    raise ZeroDivisionError", space)
    monkeypatch.setattr(cli, "app", space["broken"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "in broken" in printed and "ZeroDivisionError" in printed
    assert printed.endswith("please report it with what `saffron doctor` prints (CONTRIBUTING.md)\n")


def test_an_error_in_code_of_the_users_is_pointed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of a judge or a method of theirs; nobody is asked to report it here."""
    (tmp_path / "kitchen_judges.py").write_text("def names_a_step(prompt, response):\n    return response.no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    judging = importlib.import_module("kitchen_judges")
    monkeypatch.setattr(cli, "app", lambda: sorted(["x"], key=lambda text: judging.names_a_step("", text)))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "report" not in printed
    last = printed.splitlines()[-1]
    assert last == f"saffron: the error is in code of yours: {tmp_path / 'kitchen_judges.py'}, line 2; mend it there"


def _with_a_gpu(folder: Path, name: str) -> Path:
    """A shipped config that asks for a GPU."""
    path = folder / "gpu.yaml"
    text = (ROOT / f"config/{name}.yaml").read_text()
    path.write_text(text.replace("device: cpu", "device: cuda"))
    assert "device: cuda" in path.read_text()
    return path


def _commands(config: Path, out: Path) -> dict[str, Callable[[], None]]:
    """Every command that computes on the device."""
    return {
        "policy": lambda: cli.policy(config, out=out),
        "guard": lambda: cli.guard(config, out=out),
        "other_guard": lambda: cli.other_guard(config, out=out),
        "deepalign": lambda: cli.deepalign(config, out=out),
        "label": lambda: cli.label(config, shard=0, out=out),
        "train": lambda: cli.train(config, variant="default", out=out),
        "evaluate": lambda: cli.evaluate(config, variant="default", out=out),
        "run": lambda: cli.run("scaling", "saffron-default", config, shard=0, out=out),
        "all": lambda: cli.search_all(config, group="replicate", out=out),
        "trees": lambda: cli.trees(config, out=out),
        "judge": lambda: cli.judge("guard", config, part=None, out=out),
    }


@pytest.mark.parametrize("name", _commands(Path(), Path()))
def test_a_job_that_is_to_use_a_gpu_refuses_to_start_without_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpus, "devices", lambda: [])
    with pytest.raises(
        ConfigError, match=r"^runtime\.device is cuda, but there is no GPU here: .*; run this where there is one, or"
    ):
        _commands(_with_a_gpu(tmp_path, "smoke"), tmp_path / "out")[name]()
    assert not (tmp_path / "out").exists()


def test_jobs_that_only_move_files_need_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpus, "devices", lambda: [])
    with pytest.raises(RecordError, match="run the stage that makes it"):
        cli.search_gather("scaling", _with_a_gpu(tmp_path, "smoke"), out=tmp_path / "out")
    fetched: list[int | None] = []
    monkeypatch.setattr("saffron.models.making.policy", lambda job, layout: fetched.append(job.seed))
    cli.policy(_with_a_gpu(tmp_path, "paper"), out=tmp_path / "out")
    assert fetched == [0]


def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        models.require_device(Runtime(device="auto"))
        assert models.device_of(Runtime(device="auto")).type == device


def test_a_seed_that_is_none_of_the_configs_is_refused() -> None:
    settings, _ = cli._open(ROOT / "config/smoke.yaml", Path())
    assert cli._training_seed(settings, None) == 0
    with pytest.raises(ConfigError, match="--seed 5 is none of the config's train_seeds"):
        cli._training_seed(settings, 5)


def test_validate_says_what_would_run() -> None:
    result = run("validate", "--config", "config/smoke.yaml")
    assert result.returncode == 0
    assert "valid; 1 training seed(s), 5 experiments, 20 runs" in result.stdout


#: A locale whose encoding has few of the characters that pages and messages use.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_terminal_that_lacks_a_character_ends_no_command(tmp_path: Path) -> None:
    """What it cannot show is a question mark; files are UTF-8 in any locale (ruff's PLW1514)."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text("utf-8"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"name": "bad – name"}, allow_unicode=True), "utf-8")
    command = [sys.executable, "-m", "saffron.cli", "validate", "--config", str(tmp_path / "config.yaml")]
    done = subprocess.run(command, env=os.environ | ASCII, capture_output=True, encoding="ascii")
    assert done.returncode == 2 and "bad ? name" in done.stderr and "Traceback" not in done.stderr
