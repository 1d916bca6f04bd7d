"""Every code block of our pages holds: commands name what is there, YAML is part of a config, Python runs on tiny models."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from snakemake.cli import get_argument_parser
from transformers import LlamaConfig, LlamaForCausalLM

from saffron import cli, pages
from saffron.config import Config
from saffron.config.reference import _sections_of
from saffron.figures import discovery

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / page for page in (*pages.pages(ROOT), Path("CONTRIBUTING.md"))]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<code>.*?)^ *```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`(?P<code>(?:make|saffron|snakemake) [^`\n]+)`(?!`)")
#: What stands for a value of the reader's.
PLACEHOLDER = re.compile(r"<[^>]+>|\bNAME\b|\bFOLDER\b|\bFILE\b|…")


def blocks(page: Path, language: str | None = None) -> list[str]:
    found = [(match["language"], textwrap.dedent(match["code"])) for match in FENCE.finditer(page.read_text("utf-8"))]
    return [code for name, code in found if language is None or name == language]


def of_language(language: str) -> list[Any]:
    """Every block of a language, named by its page and place."""
    found = [(page, place, code) for page in PAGES for place, code in enumerate(blocks(page, language))]
    return [pytest.param(code, id=f"{page.relative_to(ROOT)}-{place}") for page, place, code in found]


# ----------------------------------------------------------------------------------------------------------- commands
@cache
def makefile() -> tuple[frozenset[str], frozenset[str]]:
    """Targets and variables of the Makefile."""
    text = (ROOT / "Makefile").read_text("utf-8")
    settable = next(part for part in text.split("\n\n") if "\nCONFIG :=" in part)
    return frozenset(re.findall(r"^([a-z-]+):", text, re.MULTILINE)), frozenset(
        re.findall(r"^([A-Z]+) :=", settable, re.MULTILINE)
    )


@cache
def rules() -> frozenset[str]:
    """Rules of the workflow, and those that it makes for each notebook and figure."""
    files = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    named = re.findall(r"^ *(?:rule|checkpoint) (\w+):", "\n".join(path.read_text("utf-8") for path in files), re.MULTILINE)
    return frozenset(named) | {f"draw_{name}" for name in discovery.singles()}


def wrong(line: str) -> str | None:
    """What a command names that is not there; None if all of it is."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if not words:
        return None
    command, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    known = {"make": _wrong_make, "saffron": _wrong_saffron, "snakemake": _wrong_snakemake, "sbatch": _wrong_sbatch}
    if command in known:
        return known[command](arguments)
    if command in ("pip", "python", "source", ".ci/run"):
        return None
    return f"{command}: a command that no test knows; mark the block as text if it is output"


def _wrong_make(arguments: list[str]) -> str | None:
    targets, variables = makefile()
    for word in arguments:
        name, given, value = word.partition("=")
        if not given and word not in targets:
            return f"make {word}: no such target"
        if given and name not in variables:
            return f"make {word}: no such variable"
        if given and not PLACEHOLDER.search(value) and value:
            files = {"CONFIG": f"config/{value}.yaml", "PROFILE": f"profiles/{value}/config.yaml"}
            if name in files and not (ROOT / files[name]).exists():
                return f"make {word}: no {files[name]}"
    return None


def _wrong_saffron(arguments: list[str]) -> str | None:
    command: Any = typer.main.get_command(cli.app)
    words = [word for word in arguments if word != "…"]
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"saffron {' '.join(arguments)}: no command {words[0]}"
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    strange = [word for word in words if word.startswith("--") and word not in known]
    if strange:
        return f"saffron {' '.join(arguments)}: no option {strange[0]}"
    for option, value in itertools.pairwise(words):
        if option == "--config" and not PLACEHOLDER.search(value) and not (ROOT / value).exists():
            return f"saffron {' '.join(arguments)}: no {value}"
    return None


def _wrong_snakemake(arguments: list[str]) -> str | None:
    if any(PLACEHOLDER.search(word) for word in arguments):
        return None
    parsed, unknown = get_argument_parser().parse_known_args(arguments)
    if unknown:
        return f"snakemake {' '.join(arguments)}: no option {unknown[0]}"
    if missing := [str(path) for path in parsed.configfile or [] if not (ROOT / path).exists()]:
        return f"snakemake: no {missing[0]}"
    strange = sorted(target for target in parsed.targets or [] if target not in rules())
    return f"snakemake {strange[0]}: no such rule" if strange else None


def _wrong_sbatch(arguments: list[str]) -> str | None:
    return None if (ROOT / "workflow/scripts" / arguments[0]).exists() else f"sbatch {arguments[0]}: no such script"


def commands(code: str) -> Iterator[str]:
    """Lines of a shell block, continued ones joined."""
    return (line for line in code.replace("\\\n", " ").splitlines() if line.strip())


@pytest.mark.parametrize("code", of_language("bash"))
def test_commands_name_what_is_there(code: str) -> None:
    assert [found for line in commands(code) if (found := wrong(line))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_text_name_what_is_there(page: Path) -> None:
    prose = FENCE.sub("", page.read_text("utf-8"))
    assert [found for match in INLINE.finditer(prose) if (found := wrong(match["code"]))] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_continuous_integration_calls_what_is_there(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert runs and [found for run in runs for line in commands(run) if (found := wrong(line))] == []


def test_continuous_integration_runs_tests_smoke_site_and_wheel() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert ".ci/run" in runs["test"] and "make smoke" in runs["smoke"]
    assert "make docs-site" in runs["site"] and "python -m build" in runs["wheel"]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("make replicat", "no such target"),
        ("make replicate CONFIGS=smoke", "no such variable"),
        ("make replicate CONFIG=absent", "no config/absent.yaml"),
        ("A=1 make replicate PROFILE=absent", "no profiles/absent"),
        ("saffron modells policy", "no command modells"),
        ("saffron models policy --sed 1", "no option --sed"),
        ("saffron plan --config config/absent.yaml", "no config/absent.yaml"),
        ("snakemake --no-such-option", "no option"),
        ("snakemake sauces", "no such rule"),
        ("sbatch absent.sh", "no such script"),
        ("frobnicate", "no test knows"),
    ],
)
def test_a_command_that_is_not_there_is_found(line: str, cause: str) -> None:
    assert cause in str(wrong(line))


# ----------------------------------------------------------------------------------------------------- data and settings
def sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section of a config and all below it."""
    yield section
    for field in section.model_fields.values():
        for one in _sections_of(field.annotation)[0]:
            yield from sections(one)


def keys(section: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in section.model_fields.items()}


def why_no_part(values: dict[str, Any]) -> str | None:
    """Why some keys are not valid in any section of a config; None if they are."""
    every = [Config] if values.keys() <= keys(Config).keys() else dict.fromkeys(sections(Config))
    fitting = [section for section in every if values.keys() <= keys(section).keys()]
    if not fitting:
        return f"no section of a config has {', '.join(values)}"
    causes = []
    for section in fitting:
        try:
            for key, value in values.items():
                TypeAdapter(keys(section)[key].annotation).validate_python(value)
        except ValidationError as error:
            found = [one for one in error.errors() if one["type"] != "missing"]  # which the rest of the config has
            if found:
                causes.append(f"{section.__name__}: {found[0]['loc']} {found[0]['msg']}")
                continue
        return None
    return "; ".join(causes)


#: Kinds of judge that the page's own Python brings; tests/dag/test_judges.py installs them and runs these very blocks.
BROUGHT = {"kitchen_judges:names_a_step", "long_answers"}


@pytest.mark.parametrize("code", of_language("yaml"))
def test_yaml_is_part_of_a_config_or_of_a_profile(code: str) -> None:
    filled = re.sub(r"<commit[^>]*>", "0123456789abcdef0123456789abcdef01234567", code)
    values = yaml.safe_load(filled)
    if code.startswith("# profiles/"):
        options = {option.lstrip("-") for action in get_argument_parser()._actions for option in action.option_strings}
        unknown = [key for key in values if key not in options and not key.startswith("kubernetes-")]
        assert unknown == []
        return
    if "judges" in values:
        values["judges"] = [judge for judge in values["judges"] if judge["kind"] not in BROUGHT]
    assert why_no_part(values) is None


def test_yaml_that_is_no_part_of_a_config_is_found() -> None:
    assert "no section" in str(why_no_part({"serach": {}}))
    assert "valid integer" in str(why_no_part({"mrm": {"lora_rank": "many"}}))
    assert "lora_rnk" in str(why_no_part({"mrm": {"lora_rnk": 4}}))


ENTRY_POINTS = {"saffron.methods", "saffron.judges", "saffron.readers", "saffron.figures"}


@pytest.mark.parametrize("code", of_language("toml"))
def test_toml_names_groups_of_entry_points(code: str) -> None:
    assert tomllib.loads(code)["project"]["entry-points"].keys() <= ENTRY_POINTS


@pytest.mark.parametrize("code", of_language("json"))
def test_json_is_one_object_a_line(code: str) -> None:
    assert all(isinstance(json.loads(line), dict) for line in code.splitlines())


@pytest.mark.parametrize("code", of_language("csv"))
def test_csv_rows_are_of_one_width(code: str) -> None:
    assert len({len(row) for row in csv.reader(io.StringIO(code))}) == 1


@pytest.mark.parametrize("code", of_language("dockerfile"))
def test_an_image_is_made_by_commands_that_are_there(code: str) -> None:
    runs = re.findall(r"^RUN (.*)$", code, re.MULTILINE)
    assert runs and [found for line in runs if (found := wrong(line))] == []


# ------------------------------------------------------------------------------------------------------------- Python
class Letters:
    """A tokenizer with one letter per token."""

    def batch_decode(self, ids: list[list[int]]) -> list[str]:
        return ["".join(chr(97 + id) for id in row) for row in ids]


def tiny(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()


#: The Python page has models and files of its own (tests/test_python_page.py).
PYTHON_PAGES = [page for page in PAGES if blocks(page, "python") and page.name != "python.md"]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_runs(page: Path) -> None:
    """Blocks of one page one after the other, with models, prompts and a tokenizer under the names that the pages use."""
    prompts = [[1, 2, 3], [4, 5]]
    names: dict[str, Any] = {
        "policy": tiny(0),
        "mrm": tiny(1),
        "tokenizer": Letters(),
        "prompt_ids": prompts,
        "eos": 23,
        "unseen": None,
    }
    for place, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{page.name}, Python block {place}", "exec"), names)
    if "outputs" in names:
        assert len(names["outputs"]) == len(prompts) and all(names["outputs"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_says_what_it_is(page: Path) -> None:
    """A block of another language has no test: give it one, or mark it as text if it is output or a drawing."""
    known = {"bash", "yaml", "toml", "json", "csv", "dockerfile", "python", "text"}
    assert {match["language"] for match in FENCE.finditer(page.read_text("utf-8"))} <= known
    assert page.read_text("utf-8").count("```") % 2 == 0
    indented = re.findall(r"\n\n {4}(?![-*\d ])\S[^\n]*", FENCE.sub("", page.read_text("utf-8")))
    assert [line for line in indented if page.name != "api.md"] == []
