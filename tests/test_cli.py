from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saffron import cli
from saffron.config import ConfigError

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
        *(["search", name] for name in ("run", "gather", "all", "trees")),
        ["analysis"],
        *(["figures", name] for name in ("notebook", "report", "all")),
        ["plan"],
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


def test_a_config_error_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nserach: {}\n")
    result = run("validate", "--config", str(tmp_path / "x.yaml"))
    assert result.returncode == 2
    assert result.stdout == ""
    assert "serach: unknown key" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_input_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    result = run("analysis", "--config", "config/smoke.yaml", "--out", str(tmp_path))
    assert result.returncode == 2
    assert str(tmp_path) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_a_seed_that_is_none_of_the_configs_is_refused() -> None:
    settings, _ = cli._open(ROOT / "config/smoke.yaml", Path())
    assert cli._training_seed(settings, None) == 0
    with pytest.raises(ConfigError, match="--seed 5 is none of the config's train_seeds"):
        cli._training_seed(settings, 5)


def test_validate_says_what_would_run() -> None:
    result = run("validate", "--config", "config/smoke.yaml")
    assert result.returncode == 0
    assert "valid; 1 training seed(s), 5 experiments, 18 runs" in result.stdout
