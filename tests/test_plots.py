"""Figures, tables and the report, on made-up results."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import synthetic_results
from matplotlib.figure import Figure

from saffron import analysis, captions, jobs, plots, records, report, tables
from saffron.analysis.view import View
from saffron.layout import Layout
from saffron.methods.discovery import methods

DRAWN = {
    "figure1": plots.figure1,
    "figure2": plots.figure2,
    "figure2_per_model": lambda view: plots.figure2(view, "per_model"),
    "figure3": plots.figure3,
    "figure4a": plots.figure4a,
    "figure4b": plots.figure4b,
    "scaleff": plots.scaleff_against_limit,
    "overoptimisation": plots.overoptimisation,
    "sharing": plots.sharing,
}


@pytest.fixture(scope="session")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    config = synthetic_results.config(prompts=40)
    layout = Layout(config.name, tmp_path_factory.mktemp("plots"))
    synthetic_results.write(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    return View.of(config, layout)


@pytest.fixture(scope="session")
def withheld(view: View) -> View:
    """The same results with report.show_text false."""
    config = synthetic_results.config(prompts=40, report={"show_text": False})
    return View.of(config, view.layout)


@pytest.mark.parametrize("name", ["figure2", "figure3", "figure4b"])  # a bootstrap, patches and text, a density
def test_figures_are_byte_stable_with_embedded_fonts_and_no_date(view: View, tmp_path: Path, name: str) -> None:
    for folder in ("a", "b"):
        plots.save(DRAWN[name](view), tmp_path / folder, name)
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
    plots.plt.close(figure)
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
    assert re.search(r"n = \d", captions.CAPTIONS[name](view))


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
    assert words in captions.figure1(View(view.config, layout, 0))


def test_one_colour_and_marker_per_method() -> None:
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS) and len(set(plots.MARKERS.values())) == len(plots.MARKERS)
    assert set(plots.COLOURS) == set(plots.MARKERS) == set(methods())
    assert not {plots.SHARED, plots.PRIVATE, plots.PROMPT, plots.PRM} & set(plots.COLOURS.values())


def test_units_keep_numbers_readable() -> None:
    assert captions.with_unit(1.5e6) == "1.50 MFLOP" and captions.with_unit(23.0e12) == "23.0 TFLOP"
    assert captions.with_unit(9.996e9) == "10.0 GFLOP" and captions.with_unit(1234.5e12) == "1,234 TFLOP"
    assert captions.unit([3e5, 2e9]) == (1e9, "GFLOP")


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
    plots.save(plots.ablation(ablated, "ablation_semantics"), layout.figures, "ablation_semantics")
    page = report.render(ablated)
    assert "ASR at N = 16" in page and escape(captions.CAPTIONS["ablation_semantics"](ablated)) in page
    assert "no such table" not in page


@pytest.mark.parametrize("name", sorted(tables.TABLES))
def test_tables_hold_the_same_cells_in_every_format(view: View, tmp_path: Path, name: str) -> None:
    table = tables.TABLES[name](view)
    tables.save(table, tmp_path, name)
    assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    markdown, latex = (tmp_path / f"{name}.md").read_text(), (tmp_path / f"{name}.tex").read_text()
    assert markdown.count("\n| ") >= len(table.rows) and latex.count(r"\\") >= len(table.rows) + 1
    assert len((tmp_path / f"{name}.csv").read_text().splitlines()) == len(table.rows) + 1
    assert not re.search(r"(?<!\\)[%_#](?![a-z]*\n)", latex.replace("{%\n", "{\n"))


def test_a_groups_cells_are_printed_at_its_head_and_kept_in_the_csv() -> None:
    rows = (("a", "x", "1"), ("a", "x", "1"), ("a", "y", "1"), ("b", "y", "1"), ("b", "y", "2"))
    table = tables.Table(("one", "two", "three"), rows, "Caption.", groups=2)
    assert table.printed_rows == (("a", "x", "1"), ("", "", "1"), ("", "y", "1"), ("b", "y", "1"), ("", "", "2"))
    assert table.csv() == "one,two,three\na,x,1\na,x,1\na,y,1\nb,y,1\nb,y,2\n"
    assert table.markdown_rows().splitlines()[3] == "|  |  | 1 |" and "\n &  & 1" in table.latex()
    assert tables.Table(table.columns, rows, "Caption.").printed_rows == rows


def test_the_papers_values_stand_beside_ours(view: View) -> None:
    widths = {row[0]: row[-1] for row in tables.table3(view).rows}
    assert widths["0"] == "0.897" and widths["64"] == "0.336"
    assert tables.table1(view).rows[0][-3:] == ("122.12", "0.781", "1.804")
    printed = {(row[0], row[2]): row[-1] for row in tables.table2(view).rows}
    assert printed["guild_a (Harmful HEx-PHI)", "Saffron-1"] == "0.409" and printed["guild_b (Ai2 Refusals)", "DeAL"] == "0.435"


def _texts(view: View) -> list[str]:
    frame = view.study.results("scaling").frame
    return [" ".join(text.split())[:20] for text in frame["text"]] + [f"item {i}?" for i in range(40)]


def test_text_is_withheld_where_the_config_says_so(view: View, withheld: View) -> None:
    shown, hidden = (
        tables.side_by_side(v).markdown() + tables.section56(v).markdown() + report.render(v) for v in (view, withheld)
    )
    assert any(text in shown for text in _texts(view))
    assert not [text for text in _texts(view) if text in hidden]
    figure = plots.figure1(withheld)
    words = {artist.get_text() for artist in figure.findobj(lambda a: hasattr(a, "get_text"))}
    plots.plt.close(figure)
    assert "candidate 1" in words and not words & {candidate.text.strip() for candidate in view.recorded.step.candidates}
    assert "tokens, R = " in tables.side_by_side(withheld).markdown()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_file_that_needs_nothing_else(view: View) -> None:
    report.write(view.config, view.layout)
    page = (view.layout.figures / "report.html").read_text()
    assert "make figure NAME=figure4b CONFIG=made" in page  # nothing is drawn yet, and the page says how to
    for name, draw in DRAWN.items():
        plots.save(draw(view), view.layout.figures, name)
    page = report.render(view)
    parser = _Links()
    parser.feed(page)
    assert not parser.open
    assert len([source for source in parser.sources if source.startswith("data:image/png;base64,")]) == len(DRAWN)
    assert all(source.startswith(("data:", "#")) for source in parser.sources)
    assert "<script" not in page and "Missing: figure" not in page
    assert page.index("Claim by claim") < page.index("Gates") < page.index("data:image")
    for claim in view.claims:
        assert claim["source"] in page


def test_notebooks_are_thin_stripped_and_have_their_parameters(tmp_path: Path) -> None:
    found = sorted((synthetic_results.PROJECT / "notebooks").glob("*.ipynb"))
    assert {path.stem for path in found} >= {"figure1", "figure2", "figure3", "figure4a", "figure4b", *tables.TABLES}
    for path in found:
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in code), path
        assert "parameters" in code[0].metadata.get("tags", []), path
        declared = set(re.findall(r"^(\w+) =", code[0].source, flags=re.MULTILINE))
        assert declared == {"config", "root", "seed"}, path
        assert notebook.cells[0].source.startswith("# ") and len(notebook.cells[0].source) > 150, path
        assert len(code) == 2 and len(code[1].source.splitlines()) < 20, path
        folder = tmp_path / path.stem
        folder.mkdir()


def test_a_notebooks_code_writes_its_files(view: View, tmp_path: Path) -> None:
    """The cells themselves, run here: what papermill runs, without a kernel."""
    root = tmp_path / "run"
    shutil.copytree(view.layout.root, root)
    import yaml

    from saffron.config import as_dict

    (root / "config.yaml").write_text(yaml.safe_dump(as_dict(view.config)))
    for name, files in {
        "figure2": ("figure2.pdf", "figure2_per_model.png"),
        "table1": ("table1.tex", "scaleff.pdf"),
    }.items():
        notebook = nbformat.read(synthetic_results.PROJECT / "notebooks" / f"{name}.ipynb", as_version=4)
        scope = {"config": str(root / "config.yaml"), "root": str(root), "seed": None}
        exec(compile(notebook.cells[2].source, name, "exec"), scope)
        for file in files:
            assert (root / "figures" / "made" / file).exists()


def test_plotting_imports_no_model_library() -> None:
    code = "import sys; from saffron import plots, tables, report; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=synthetic_results.PROJECT)


def test_seeds_are_compared_where_there_are_several(tmp_path: Path) -> None:
    config = synthetic_results.config(prompts=12, seeds=(0, 1))
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    seeded = View.of(config, layout)
    table = tables.seed_variance(seeded)
    assert table.columns == ("method", "seed 0", "seed 1", "standard deviation") and len(table.rows) == 6
    page = report.render(seeded)
    assert table.caption in page
    record = next(claim for claim in seeded.claims if claim["difference_seen"] is not None)
    k, n = record["seeds_as_claimed"]
    assert n == 2 and record["verdict"] == "undecided"
    seen = f"a difference of {record['difference_seen']:.3f} would have been seen"
    assert f'undecided">undecided ({k} of 2 seeds)</span><br><span class="note">{seen}</span>' in page
    claimed = tables.claims_table(seeded)
    assert f"undecided ({k} of 2 seeds): {seen}" in {row[4] for row in claimed.rows}
    assert claimed.caption.endswith("“Would have been seen”: with power 0.8.")
    assert "seeds agree" not in page
