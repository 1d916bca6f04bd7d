"""The report as a page: its order, its structure, and that it needs nothing else."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import synthetic_results
from bs4 import BeautifulSoup, Tag
from hypothesis import given, settings
from hypothesis import strategies as st

from saffron import config as configs
from saffron import jobs, records
from saffron.analysis import claims, paper
from saffron.analysis import stage as analysis
from saffron.analysis.view import View
from saffron.figures import discovery
from saffron.figures.exhibits import table2
from saffron.layout import Layout
from saffron.runs import report
from saffron.table import Table

ENVIRONMENT = report.environment()
HOSTILE = "<img src=x onerror=alert(1)> & \"quoted\" 'too' </table>"


def parsed(view: View) -> BeautifulSoup:
    """The page of a run."""
    return BeautifulSoup(report.render(view), "html.parser")


@pytest.fixture(scope="module")
def drawn(view: View, tmp_path_factory: pytest.TempPathFactory) -> View:
    """The same run with some figures and tables drawn, in a project that has the reference data."""
    root = tmp_path_factory.mktemp("drawn")
    shutil.copytree(view.layout.root, root, dirs_exist_ok=True)
    shutil.copytree(synthetic_results.PROJECT / "data/reference", root / "data/reference")
    found = View.of(view.config, Layout(view.config.name, root))
    exhibits = discovery.exhibits(view.config)
    for name in ("figure2", "figure2_per_model", "table2"):
        exhibits[name].save(found)
    return found


@pytest.fixture(scope="module")
def page(drawn: View) -> BeautifulSoup:
    """Its page."""
    return parsed(drawn)


def _one(page: BeautifulSoup | Tag, selector: str) -> Tag:
    (found,) = page.select(selector)
    return found


def _rows(body: Tag) -> list[tuple[str, ...]]:
    """Texts of a table's cells."""
    return [tuple(cell.get_text() for cell in row.select("th, td")) for row in body.select("tr")]


def _own(tmp_path: Path) -> View:
    """A run of a config that has an experiment without a role and none of the paper's."""
    values = configs.as_dict(synthetic_results.config(prompts=12))
    runs = [{"method": "best_of_n", "budgets": [1, 4]}, {"method": "saffron", "budgets": [4, 16]}]
    values["search"]["experiments"] = {"mine": {"dataset": "guild_b", "runs": runs}}
    config = configs.parse(values, "test")
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    return View.of(config, layout)


def test_the_answers_stand_first(drawn: View, page: BeautifulSoup) -> None:
    main = _one(page, "main")
    first = next(child for child in main.children if isinstance(child, Tag))
    answers = first.select("ul.answers > li")
    records_ = {record["id"]: record for record in drawn.claims}
    assert len(answers) == len(paper.headlines()) <= 8
    for item, name in zip(answers, paper.headlines(), strict=True):
        assert records_[name]["statement"] in item.get_text()
        assert _one(item, ".badge").get_text().startswith(records_[name]["verdict"])
    exhibit = discovery.exhibits(drawn.config)["figure2"]
    assert _one(first, "img")["alt"] == exhibit.alt_text(drawn)


def test_the_first_paragraph_says_what_holds_by_one_judge_alone(tmp_path: Path) -> None:
    """The guard's verdicts are as made up; by the others every attack succeeds, and what cost alone decides holds by them too."""
    config = synthetic_results.config(prompts=40)
    layout = Layout(config.name, tmp_path)
    synthetic_results.write(config, layout)
    for name in config.search.experiments.keys() - {"benign"}:  # of which nothing is claimed, and refusals are counted
        for judge in ("oracle", "refusals"):
            synthetic_results.write_verdicts(layout, 0, judge, name, True)
    analysis.run(jobs.analyse(config).config, layout)
    view = View.of(config, layout)
    page = BeautifulSoup(report.render(view), "html.parser")
    lead = _one(page, "header p").get_text()
    held = [record for record in view.claims if record["by"] and claims.holds(record)]
    alone = [record for record in held if claims.not_by(record)]
    assert {record["id"] for record in held if record not in alone} == {"table1.children_scaleff", "table1.lookahead_scaleff"}
    counted = f"hold by guard: {len(held)}. By every other judge too (oracle, refusals): {len(held) - len(alone)}."
    assert f"{counted} By guard alone: " in lead and len(alone) > 4
    assert all(record["statement"].rstrip(".") in lead for record in alone)
    first = [record for record in alone if record["id"] in paper.headlines()]
    notes = [item.get_text() for item in page.select("ul.answers > li .note") if "not by oracle or refusals" in item.get_text()]
    assert len(notes) == len(first) > 0


def test_the_first_figure_is_there_once(page: BeautifulSoup) -> None:
    sources = [image["src"] for image in page.select("img")]
    assert len(sources) == len(set(sources)) == 2


def test_claims_without_a_verdict_stand_in_the_appendix(drawn: View, page: BeautifulSoup) -> None:
    untestable = {record["source"] + record["statement"] for record in drawn.claims if record["verdict"] == "not testable"}
    tables = {key: _one(page, f"section:has(#{key}) tbody") for key in ("claims", "untestable")}
    rows = {key: {"".join(cells[:2]) for cells in _rows(found)} for key, found in tables.items()}
    assert untestable == rows["untestable"] and len(untestable) > 5
    assert len(rows["claims"]) == len(drawn.claims) - len(untestable) and not rows["claims"] & untestable
    keys = [heading["id"] for heading in page.select("h2")]
    assert keys[0] == "answers" and keys.index("scaling") < keys.index("claims") < keys.index("untestable")


def test_headings_go_down_one_step_at_a_time(page: BeautifulSoup) -> None:
    levels = [int(heading.name[1]) for heading in page.select("h1, h2, h3, h4, h5, h6")]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_ids_are_unique_and_every_anchor_leads_somewhere(page: BeautifulSoup) -> None:
    ids = [str(found["id"]) for found in page.select("[id]")]
    assert len(ids) == len(set(ids))
    anchors = {str(link["href"])[1:] for link in page.select('a[href^="#"]')}
    assert anchors <= set(ids) and {heading["id"] for heading in page.select("section > h2")} - {"answers"} <= anchors


def test_it_is_one_file_and_its_links_lead_to_the_runs_files(drawn: View, page: BeautifulSoup) -> None:
    assert not page.select("link, iframe, script[src], img:not([src^='data:image/png;base64,'])")
    assert "url(" not in _one(page, "style").get_text() and "@import" not in _one(page, "style").get_text()
    links = [str(link["href"]) for link in page.select("a") if not str(link["href"]).startswith("#")]
    for link in links:
        assert not re.match(r"[a-z]+:|/", link), link
        assert (drawn.layout.figures / link).exists(), link
    assert {"table2.csv", "figure2.pdf", "../../data/made/analysis/claims.json"} <= set(links)


def test_every_table_and_figure_names_its_files(page: BeautifulSoup) -> None:
    for shown in page.select("main section > .scroll, main section > figure"):
        following = [found for found in shown.find_next_siblings() if isinstance(found, Tag)]
        source = next(found for found in following if "caption" not in found.get("class", []))
        label = shown.get("aria-label")
        assert "sources" in source.get("class", []) or label in ("Provenance", "Runtimes by stage"), label


def test_a_page_is_read_with_a_keyboard_and_by_a_screen_reader(page: BeautifulSoup) -> None:
    assert _one(page, "html")["lang"] == "en" and _one(page, "title").get_text()
    assert all(str(image.get("alt", "")).strip() for image in page.select("img"))
    for box in page.select(".scroll"):
        assert box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"]
    for found in page.select("table"):
        assert found.find_parent(class_="scroll") is not None  # it scrolls there, not the page
        assert all(head.get("scope") == "col" and head.get_text() for head in found.select("thead th"))
        assert all(row.select("th[scope=row]") for row in found.select("tbody tr"))
    assert "width=device-width" in str(_one(page, "meta[name=viewport]")["content"])


def _luminance(colour: str) -> float:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, by WCAG 2.1."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_words_can_be_told_from_the_page_in_either_scheme(page: BeautifulSoup) -> None:
    style = _one(page, "style").get_text()
    dark = style.index("@media (prefers-color-scheme: dark)")
    schemes: list[dict[str, str]] = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in (style[:dark], style[dark:])]
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and schemes[0].keys() == schemes[1].keys()
    for scheme in schemes:
        for words in ("text", "muted", "link"):
            for behind in ("page", "code", "warn"):
                assert contrast(scheme[words], scheme[behind]) >= 4.5, (words, behind)
    badges = re.findall(r"\.([\w-]+) \{ background: (#\w{6}); \}", style)
    assert {name for name, _ in badges} == {verdict.replace(" ", "-") for verdict in analysis.claims.VERDICTS}
    assert all(contrast("#ffffff", colour) >= 4.5 for _, colour in badges)


def test_the_same_results_give_the_same_bytes(drawn: View) -> None:
    path = drawn.layout.figures / "report.html"
    report.write(drawn.config, drawn.layout)
    assert path.read_bytes() == report.render(drawn).encode()


def _shown(part: report.Part) -> BeautifulSoup:
    template = ENVIRONMENT.from_string('{% import "parts.html" as parts %}{{ parts[part.kind](part.values) }}')
    return BeautifulSoup(template.render(part=part), "html.parser")


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"))), min_size=1, max_size=4))
def test_whatever_a_cell_holds_is_text(cells: list[str]) -> None:
    table = Table(tuple("abcd"[: len(cells)]), (tuple(cells),), HOSTILE)
    shown = _shown(report._table(table, HOSTILE, []))
    assert _rows(_one(shown, "tbody")) == [tuple(cells)]
    assert _one(shown, ".caption").get_text() == _one(shown, ".scroll")["aria-label"] == HOSTILE


def test_repeated_groups_are_kept_for_sorting(drawn: View, page: BeautifulSoup) -> None:
    """A cell that the head of its group says already is hidden until the rows are sorted, and not left out."""
    made = table2.table(drawn)
    body = _one(page, f'[aria-label="{table2.EXHIBIT.title}"] tbody')
    assert _rows(body) == list(made.rows)
    printed = [cell for row in made.printed_rows for cell in row]
    assert len(body.select(".again")) == printed.count("") > 0


def test_texts_of_a_run_are_no_markup(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    records_: list[dict[str, Any]] = [record | {"statement": HOSTILE, "cause": HOSTILE} for record in view.claims]
    hostile = View(view.config, view.layout, view.seed)
    hostile.__dict__["claims"] = records_
    text = report.render(hostile)
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert HOSTILE in BeautifulSoup(text, "html.parser").get_text()


def test_ones_own_experiment_without_a_role_has_its_place(tmp_path: Path) -> None:
    view = _own(tmp_path)
    page = parsed(view)
    keys = [str(heading["id"]) for heading in page.select("h2")]
    assert keys[:2] == ["answers", "own"] and not {"scaling", "matched", "experiments"} & set(keys)
    assert "experiment_mine.png" in _one(page, ".first").get_text()  # not drawn yet: named with its command
    discovery.exhibits(view.config)["experiment_mine"].save(view)
    page = parsed(view)
    assert "Best-of-N" in str(_one(page, ".first img")["alt"])
    own = _one(page, "section:has(#own)")
    assert "Experiment mine" in _one(own, "h3").get_text() and len(own.select("tbody tr")) == 4
    untested = len(paper.headlines()) - len(page.select(".answers > li"))
    assert untested > 4 and f"{untested} of the {len(paper.headlines())} main claims" in _one(page, ".first").get_text()


def test_a_figure_that_is_not_drawn_is_named_with_its_command(view: View) -> None:
    assert "make figure NAME=figure4b CONFIG=made" in report.render(view)


def test_a_published_run_stands_beside_this_one(drawn: View) -> None:
    """With the link to its record."""
    published = next(iter(sorted((drawn.layout.root / "data/reference/ours").glob("*.json"))))
    record = records.read_json(published)
    record["settings"] = configs.as_dict(drawn.config)
    records.write_json(published, record)
    section = _one(parsed(drawn), "section:has(#published)")
    assert section.select("tbody tr") and all(head.get_text() for head in section.select("thead th"))
    assert f"../../data/reference/ours/{published.name}" in {link["href"] for link in section.select(".sources a")}
