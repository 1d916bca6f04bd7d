"""Figures, tables and the report, on made-up results."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import synthetic_results
import yaml
from markupsafe import escape
from matplotlib.figure import Figure

from saffron import config as configs
from saffron import jobs, records, table
from saffron.analysis import stage as analysis
from saffron.analysis.view import View
from saffron.config import Config, as_dict
from saffron.figures import discovery, style
from saffron.figures.exhibits import claims, figure1, section56, seed_variance, side_by_side, table1, table2, table3
from saffron.figures.words import unit, with_unit
from saffron.layout import Layout
from saffron.methods.discovery import methods
from saffron.runs import report

CONFIG = synthetic_results.config(prompts=40)
ALL = discovery.exhibits(CONFIG)
DRAWN = {name: exhibit.draw for name, exhibit in ALL.items() if exhibit.draw is not None and exhibit.group == "replicate"}
TABLES = {name: exhibit.table for name, exhibit in ALL.items() if exhibit.table is not None and exhibit.group == "replicate"}


@pytest.fixture(scope="session")
def withheld(view: View) -> View:
    """The same results with report.show_text false."""
    config = synthetic_results.config(prompts=40, report={"show_text": False})
    return View.of(config, view.layout)


@pytest.mark.parametrize("name", ["figure2", "figure3", "figure4b"])  # a bootstrap, patches and text, a density
def test_figures_are_byte_stable_with_embedded_fonts_and_no_date(view: View, tmp_path: Path, name: str) -> None:
    for folder in ("a", "b"):
        style.save(DRAWN[name](view), tmp_path / folder, name)
    for suffix in ("pdf", "png"):
        first, second = (tmp_path / folder / f"{name}.{suffix}" for folder in ("a", "b"))
        assert first.read_bytes() == second.read_bytes() and first.stat().st_size > 5_000
    pdf = (tmp_path / "a" / f"{name}.pdf").read_bytes()
    assert b"CreationDate" not in pdf and b"/Type3" not in pdf and b"/FontFile2" in pdf


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_text_stays_inside_the_figure(view: View, name: str) -> None:
    figure = DRAWN[name](view)
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    undrawn = _undrawn_labels(figure)
    clipped = [
        (text.get_text(), tuple(round(v) for v in box.extents))
        for text in figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_visible() and artist.get_text())
        for box in [text.get_window_extent()]
        if box.width and (box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1)
        if id(text) not in undrawn
    ]
    style.plt.close(figure)
    assert not clipped


def _undrawn_labels(figure: Figure) -> set[int]:
    """Tick labels that are not drawn: their tick lies outside the axis' limits, or the axes are off."""
    found = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not axes.axison or not low <= tick.get_loc() <= high:
                    found |= {id(tick.label1), id(tick.label2)}
    return found


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_captions_say_on_how_many(view: View, name: str) -> None:
    assert re.search(r"n = \d", ALL[name].caption(view))


@pytest.mark.parametrize(
    ("kept", "words"), [((0, 4), "n = 6 candidates; 2 of them entered"), ((), "n = 6 candidates; none of them entered")]
)
def test_the_caption_of_figure_1_says_how_many_candidates_were_kept(
    view: View, tmp_path: Path, kept: tuple[int, ...], words: str
) -> None:
    layout = Layout(view.config.name, tmp_path)
    shutil.copytree(view.layout.search_trees(0).parent, layout.search_trees(0).parent)
    record = records.read_json(layout.search_trees(0))
    for i, candidate in enumerate(record["step"]["candidates"]):
        candidate["kept"] = i in kept
    records.write_json(layout.search_trees(0), record)
    assert words in figure1.caption(View(view.config, layout, 0))


def test_one_colour_and_marker_per_method() -> None:
    assert len(set(style.COLOURS.values())) == len(style.COLOURS) and len(set(style.MARKERS.values())) == len(style.MARKERS)
    assert set(style.COLOURS) == set(style.MARKERS) == set(methods())
    assert not {style.SHARED, style.PRIVATE, style.PROMPT, style.PRM} & set(style.COLOURS.values())


def test_units_keep_numbers_readable() -> None:
    assert with_unit(1.5e6) == "1.50 MFLOP" and with_unit(23.0e12) == "23.0 TFLOP"
    assert with_unit(9.996e9) == "10.0 GFLOP" and with_unit(1234.5e12) == "1,234 TFLOP"
    assert unit([3e5, 2e9]) == (1e9, "GFLOP")


def test_ablations_are_drawn_and_missing_ones_named(view: View, tmp_path: Path) -> None:
    runs = [
        {"method": "saffron", "budgets": [4, 16]},
        {"method": "saffron", "settings_id": "released", "budgets": [4, 16], "settings": {"semantics": "released"}},
    ]
    values = view.config.model_dump(mode="json", by_alias=True)
    search = values["search"]
    search["experiments"]["ablations"] = {"dataset": "guild_b", "runs": runs, "group": "ablations"}
    compared = {"ablation_semantics": {"runs": ["saffron-default", "saffron-released"]}}
    config = synthetic_results.config(prompts=40, search=search, analysis={"bootstrap_samples": 200, "ablations": compared})
    root = tmp_path / "run"
    shutil.copytree(view.layout.root, root)
    layout = Layout(config.name, root)
    assert "ablations.parquet: no such table" in report.render(View.of(config, layout))
    synthetic_results.write(config, layout)
    ablated = View.of(config, layout)
    exhibit = discovery.exhibits(config)["ablation_semantics"]
    exhibit.save(ablated)
    for suffix in ("pdf", "png", "csv", "md", "tex"):
        assert (layout.figures / f"ablation_semantics.{suffix}").stat().st_size > 0
    page = report.render(ablated)
    assert exhibit.caption is not None
    assert "ASR at N = 16" in page and escape(exhibit.caption(ablated)) in page
    assert "no such table" not in page


@pytest.mark.parametrize("name", sorted(TABLES))
def test_tables_hold_the_same_cells_in_every_format(view: View, tmp_path: Path, name: str) -> None:
    made = TABLES[name](view)
    table.save(made, tmp_path, name)
    assert made.rows and all(len(row) == len(made.columns) for row in made.rows)
    markdown, latex = (tmp_path / f"{name}.md").read_text(), (tmp_path / f"{name}.tex").read_text()
    assert markdown.count("\n| ") >= len(made.rows) and latex.count(r"\\") >= len(made.rows) + 1
    assert len((tmp_path / f"{name}.csv").read_text().splitlines()) == len(made.rows) + 1
    assert not re.search(r"(?<!\\)[%_#](?![a-z]*\n)", latex.replace("{%\n", "{\n"))


def test_the_papers_values_stand_beside_ours(view: View) -> None:
    widths = {row[0]: row[-1] for row in table3.table(view).rows}
    assert widths["0"] == "0.897" and widths["64"] == "0.336"
    assert table1.table(view).rows[0][-3:] == ("122.12", "0.781", "1.804")
    printed = {(row[0], row[2]): row[-1] for row in table2.table(view).rows}
    assert printed["guild_a (Harmful HEx-PHI)", "Saffron-1"] == "0.409" and printed["guild_b (Ai2 Refusals)", "DeAL"] == "0.435"


def _texts(view: View) -> list[str]:
    frame = view.study.results("scaling").frame
    return [" ".join(text.split())[:20] for text in frame["text"]] + [f"item {i}?" for i in range(40)]


def test_text_is_withheld_where_the_config_says_so(view: View, withheld: View) -> None:
    shown, hidden = (
        side_by_side.table(v).markdown() + section56.table(v).markdown() + report.render(v) for v in (view, withheld)
    )
    assert any(text in shown for text in _texts(view))
    assert not [text for text in _texts(view) if text in hidden]
    figure = figure1.draw(withheld)
    words = {artist.get_text() for artist in figure.findobj(lambda a: hasattr(a, "get_text"))}
    style.plt.close(figure)
    assert "candidate 1" in words and not words & {candidate.text.strip() for candidate in view.recorded.step.candidates}
    assert "tokens, R = " in side_by_side.table(withheld).markdown()


def test_notebooks_are_thin_stripped_and_have_their_parameters() -> None:
    found = sorted((synthetic_results.PROJECT / "notebooks").glob("*.ipynb"))
    used = {
        exhibit.notebook
        for exhibit in discovery.exhibits(configs.load(synthetic_results.PROJECT / "config/sandbox.yaml")).values()
    }
    assert {path.stem for path in found} == used
    for path in found:
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in code), path
        assert "parameters" in code[0].metadata.get("tags", []), path
        declared = set(re.findall(r"^(\w+) =", code[0].source, flags=re.MULTILINE))
        assert declared == {"config", "root", "seed", "name"}, path
        assert notebook.cells[0].source.startswith("# ") and len(notebook.cells[0].source) > 150, path
        assert len(code) == 2 and len(code[1].source.splitlines()) < 20, path


def _run_notebook(name: str, config: Config, root: Path, page: str) -> None:
    """The cells themselves, run here: what papermill runs, without a kernel."""
    (root / "config.yaml").write_text(yaml.safe_dump(as_dict(config)))
    notebook = nbformat.read(synthetic_results.PROJECT / "notebooks" / f"{name}.ipynb", as_version=4)
    scope = {"config": str(root / "config.yaml"), "root": str(root), "seed": None, "name": page}
    exec(compile(notebook.cells[2].source, name, "exec"), scope)


def test_a_notebooks_code_writes_its_files(view: View, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(view.layout.root, root)
    for page in ("figure2", "table1", "experiments"):
        _run_notebook("figure", view.config, root, page)
        for exhibit in discovery.page(view.config, page):
            for file in exhibit.files(Layout("made", root)):
                assert Path(file).stat().st_size > 0


def test_plotting_imports_no_model_library() -> None:
    code = "import sys; from saffron.figures import curves, discovery; from saffron.runs import report; discovery.modules()\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=synthetic_results.PROJECT)


def test_seeds_are_compared_where_there_are_several(tmp_path: Path) -> None:
    config = synthetic_results.config(prompts=12, seeds=(0, 1))
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    seeded = View.of(config, layout)
    made = seed_variance.table(seeded)
    assert made.columns == ("method", "seed 0", "seed 1", "standard deviation") and len(made.rows) == 6
    page = report.render(seeded)
    assert made.caption in page
    record = next(claim for claim in seeded.claims if claim["difference_seen"] is not None)
    k, n = record["seeds_as_claimed"]
    assert n == 2 and record["verdict"] == "undecided"
    seen = f"a difference of {record['difference_seen']:.3f} would have been seen"
    assert f'undecided">undecided ({k} of 2 seeds)</span><br><span class="note">{seen}</span>' in page
    claimed = claims.table(seeded)
    assert f"undecided ({k} of 2 seeds): {seen}" in {row[4] for row in claimed.rows}
    assert claimed.caption.endswith("“Would have been seen”: with power 0.8.")
    assert "seeds agree" not in page
