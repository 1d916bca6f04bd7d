"""Which figures and tables there are: found, not listed, also from outside the package."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import synthetic_results

from saffron import config as configs
from saffron import jobs, plugins
from saffron.analysis import stage as analysis
from saffron.analysis.view import View
from saffron.config import Config
from saffron.figures import discovery
from saffron.figures.base import Exhibit, FigureError
from saffron.figures.exhibits import table3
from saffron.layout import Layout
from saffron.runs import jobs as figure_jobs
from saffron.runs import report
from saffron.table import Table

ROOT = Path(__file__).parents[2]
CONFIG = configs.load(ROOT / "config/sandbox.yaml")

OWN = Exhibit(
    title="Seeds",
    about="Which seeds were trained.",
    section="Of my own",
    table=lambda view: Table(("seed",), tuple((str(seed),) for seed in view.config.train_seeds), "My own words."),
)


def family(config: Config) -> Mapping[str, Exhibit]:
    return {f"seeds_of_{name}": OWN for name in config.search.experiments}


def a_list(config: Config) -> object:
    return []


def failing(config: Config) -> object:
    raise ZeroDivisionError("no sets")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points of installed distributions, to add to."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in points if point.group == group])
    discovery._described.cache_clear()
    yield points
    discovery._described.cache_clear()


def entry(name: str, attribute: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{attribute}", discovery.GROUP)


@pytest.fixture(autouse=True)
def loadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point's value is what this file calls so, wherever it is imported from."""
    monkeypatch.setattr(EntryPoint, "load", lambda point: globals()[point.attr])


def test_every_file_is_an_exhibit_named_after_it() -> None:
    files = {path.stem for path in (ROOT / "src/saffron/figures/exhibits").glob("*.py")} - {"__init__"}
    assert {name.rpartition(".")[2] for name in discovery.modules()} == files
    assert discovery.singles().keys() <= files


def test_what_the_paper_shows_is_there() -> None:
    paper = {"figure1", "figure2", "figure3", "figure4a", "figure4b", "table1", "table2", "table3", "section56"}
    assert paper <= discovery.pages(CONFIG, "replicate").keys()
    assert {name for name in discovery.pages(CONFIG, "ablations") if name.startswith("ablation_")} == set(
        CONFIG.analysis.ablations
    )


def test_every_exhibit_has_its_words_and_a_place() -> None:
    sections = {key for key, _, _ in report.SECTIONS}
    for exhibit in discovery.exhibits(CONFIG).values():
        assert exhibit.title and exhibit.about, exhibit.name
        assert exhibit.section is None or exhibit.section in sections, exhibit.name
        assert exhibit.draw is None or (exhibit.caption is not None and exhibit.alt is not None), exhibit.name


GUARD, ORACLE = {"name": "guard", "kind": "guard"}, {"name": "oracle", "kind": "sandbox"}


@pytest.mark.parametrize(
    ("role", "judges", "gone"),
    [
        ("exploration", None, {"table1", "scaleff"}),
        ("matched", None, {"table2"}),
        ("section56", None, {"section56", "side_by_side"}),
        ("benign", None, {"benign"}),
        (None, [GUARD], {"benign", "judges_apart_scaling"}),  # nobody tells a refusal, nobody judges apart
        (None, [ORACLE], {"mrm_in_search", "judges_apart_scaling"}),  # nobody has the guard's rewards
    ],
)
def test_what_a_config_lacks_is_not_made(role: str | None, judges: list[dict[str, str]] | None, gone: set[str]) -> None:
    values = configs.as_dict(CONFIG)
    for item in values["search"]["experiments"].values():
        item["role"] = None if item["role"] == role else item["role"]
    values["judges"] = judges or values["judges"]
    assert discovery.exhibits(CONFIG).keys() - discovery.exhibits(configs.parse(values, "test")).keys() == gone


def test_every_experiment_has_its_cells_and_a_curve_where_it_has_budgets() -> None:
    found = discovery.exhibits(CONFIG)
    for name, item in CONFIG.search.experiments.items():
        exhibit = found[f"experiment_{name}"]
        assert exhibit.table is not None and exhibit.section == "experiments" and exhibit.group == item.group
    drawn = {name for name in CONFIG.search.experiments if found[f"experiment_{name}"].draw is not None}
    assert {"development", "ablations"} <= drawn
    assert not {"scaling", "exploration", "deepalign"} & drawn  # Figure 2; one budget; one run


def test_an_exhibit_and_a_family_come_from_installed_distributions(installed: list[EntryPoint]) -> None:
    installed += [entry("mine", "OWN"), entry("many", "family")]
    found = discovery.exhibits(CONFIG)
    assert found["mine"].table is OWN.table and found["mine"].module == __name__
    assert {f"seeds_of_{name}" for name in CONFIG.search.experiments} <= found.keys()


@pytest.mark.parametrize(
    ("name", "attribute", "message"),
    [
        ("figure2", "OWN", "two figures or tables are called figure2"),
        ("my-figure", "OWN", r"figure 'my-figure' .*letters, digits, _ and \. alone"),
        ("mine", "ROOT", "figure mine: .*:ROOT is a .*Path, not an Exhibit"),
        ("mine", "absent", r"figure mine: .*:absent cannot be loaded \(KeyError: 'absent'\); mend or remove what brings it"),
        ("mine", "a_list", r"figures mine \(.*\): its function must give exhibits by name, not \[\]"),
        ("mine", "failing", r"figures mine \(.*\): ZeroDivisionError: .*; mend its function of a config"),
    ],
)
def test_entry_points_are_checked(installed: list[EntryPoint], name: str, attribute: str, message: str) -> None:
    installed.append(entry(name, attribute))
    with pytest.raises(FigureError, match=message):
        discovery.exhibits(CONFIG)


@pytest.mark.parametrize("key", ["needs", "reads"])
def test_a_role_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(FigureError, match="exhibit 'Seeds': no role 'scalling'; there are scaling, "):
        replace(OWN, **{key: ("scalling",)})  # type: ignore[arg-type]


def test_a_page_is_of_one_notebook_and_one_group(installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ELSEWHERE", replace(OWN, page="figure2", group="ablations"))
    installed.append(entry("mine", "ELSEWHERE"))
    with pytest.raises(FigureError, match=r"page figure2: .*mine.* are not all of one notebook and one group"):
        discovery.pages(CONFIG)


def test_an_unknown_page_is_named_with_the_known_ones() -> None:
    with pytest.raises(FigureError, match=r"config sandbox: no figure or table figure9; there are ablation_bias, .*scaleff, "):
        discovery.page_of(CONFIG, "figure9")
    with pytest.raises(FigureError, match=r"config sandbox: no page scaleff of figures and tables; there are ablation_bias, "):
        discovery.page(CONFIG, "scaleff")
    made = {name: discovery.page_of(CONFIG, name) for name in discovery.exhibits(CONFIG)}
    assert made["scaleff"] == "table1" and set(made.values()) == discovery.pages(CONFIG).keys()


def test_an_exhibit_shows_something_and_says_what() -> None:
    with pytest.raises(FigureError, match="draws no figure and makes no table"):
        Exhibit(title="Nothing", about="", section=None)
    with pytest.raises(FigureError, match="a figure without a caption"):
        replace(OWN, draw=lambda view: None)


def test_the_workflow_takes_exhibits_from_outside_into_the_report(installed: list[EntryPoint], view: View) -> None:
    assert "Of my own" not in report.render(view)
    installed.append(entry("mine", "OWN"))
    discovery._described.cache_clear()
    page = report.render(view)
    assert "My own words." in page
    assert page.index('<h2 id="ablations"') < page.index(">Of my own</h2>") < page.index('<h2 id="differences"')


def test_a_pages_job_depends_on_its_exhibits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    from saffron import code

    before = {name: figure_jobs.notebook(CONFIG, name).line for name in discovery.pages(CONFIG)}
    meaning = code._meaning
    for file, reached in (("table3", {"table3"}), ("scaleff", {"table1"}), ("ablation", set(CONFIG.analysis.ablations))):
        path = Path(str(table3.__file__)).with_name(f"{file}.py")
        monkeypatch.setattr(code, "_meaning", lambda found, path=path: "another" if found == path else meaning(found))
        code.digest.cache_clear()
        assert {name for name in before if figure_jobs.notebook(CONFIG, name).line != before[name]} == reached
    monkeypatch.undo()
    code.digest.cache_clear()


def test_an_experiment_of_ones_own_name_is_shown(tmp_path: Path) -> None:
    """In cells, a table, a scaling curve and the report."""
    values = configs.as_dict(synthetic_results.config(prompts=12))
    runs = [{"method": "best_of_n", "budgets": [1, 4]}, {"method": "saffron", "settings_id": "wide", "budgets": [4]}]
    values["search"]["experiments"]["My_study"] = {"dataset": "guild_b", "runs": runs}
    config = configs.parse(values, "test")
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    view = View.of(config, layout)
    assert set(view.cells.loc[view.cells["experiment"] == "My_study", "budget"]) == {1, 4}
    exhibit = discovery.exhibits(config)["experiment_My_study"]
    exhibit.save(view)
    assert [Path(path).suffix for path in exhibit.files(layout) if Path(path).exists()] == [".pdf", ".png", ".csv", ".md", ".tex"]
    lines = (layout.figures / "experiment_My_study.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["Best-of-N", "default", "1"],
        ["Best-of-N", "default", "4"],
        ["Saffron-1", "wide", "4"],
    ]
    page = report.render(view)
    caption = "Experiment My_study: attack success rate against compute"
    assert page.count(caption) == 1 and re.search(r'alt="[^"]*Best-of-N 0\.\d\d at [^"]* and Saffron-1, wide 0\.\d\d at ', page)


def test_a_figure_of_the_users_that_fails_names_itself_and_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_figures.py").write_text("def draw(view):\n    return view.no_such_thing\n\n\ndef nothing(view):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine: Any = importlib.import_module("my_figures")
    view: Any = SimpleNamespace(layout=Layout("x", tmp_path))
    exhibit = replace(OWN, table=None, draw=mine.draw, caption=lambda view: "words", name="mine", module="my_figures")
    with pytest.raises(FigureError, match=r"^mine \(my_figures\): AttributeError: .*my_figures\.py, line 2\); mend it there$"):
        exhibit.save(view)
    with pytest.raises(FigureError, match=r"mine \(my_figures\): draw must give a matplotlib figure, .* not a NoneType"):
        replace(exhibit, draw=mine.nothing).save(view)
