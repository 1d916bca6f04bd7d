"""The one table and its formats."""

from __future__ import annotations

import csv
import io

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from saffron.table import Table


def test_a_groups_cells_are_printed_at_its_head_and_kept_in_the_csv() -> None:
    rows = (("a", "x", "1"), ("a", "x", "1"), ("a", "y", "1"), ("b", "y", "1"), ("b", "y", "2"))
    table = Table(("one", "two", "three"), rows, "Caption.", groups=2)
    assert table.printed_rows == (("a", "x", "1"), ("", "", "1"), ("", "y", "1"), ("b", "y", "1"), ("", "", "2"))
    assert table.csv() == "one,two,three\na,x,1\na,x,1\na,y,1\nb,y,1\nb,y,2\n"
    assert table.markdown_rows().splitlines()[3] == "|  |  | 1 |" and "\n &  & 1" in table.latex()
    assert Table(table.columns, rows, "Caption.").printed_rows == rows


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12)
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.tuples(
        st.lists(CELLS, min_size=width, max_size=width, unique=True),
        st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=4),
    )
)


@given(TABLES)
def test_every_cell_is_in_the_csv_as_it_is(cells: tuple[list[str], list[list[str]]]) -> None:
    columns, rows = cells
    table = Table(tuple(columns), tuple(map(tuple, rows)))
    assert list(csv.reader(io.StringIO(table.csv()), strict=True)) == [columns, *rows]
    assert Table.of(table.frame) == table
    assert table.markdown_rows().count("\n") == len(rows) + 2


def test_latex_has_no_character_that_latex_reads() -> None:
    table = Table(("a_b", "50 %"), (("x & y", "#1 {z} \\ ~ ^"),), "Costs $5, “n” ≤ 3 × 2².")
    assert table.latex() == (
        "\\begin{table}\n\\centering\n\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}{ll}\n\\toprule\n"
        "a\\_b & 50 \\% \\\\\n\\midrule\n"
        "x \\& y & \\#1 \\{z\\} \\textbackslash{} \\textasciitilde{} \\textasciicircum{} \\\\\n"
        "\\bottomrule\n\\end{tabular}}\n\\caption{Costs \\$5, ``n'' $\\leq$ 3 $\\times$ 2$^2$.}\n\\end{table}\n"
    )


def test_numbers_are_aligned_to_the_right_where_asked() -> None:
    assert Table(("a", "b"), (("x", "1"),)).markdown_rows(right=("b",)) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"
    assert Table.of(pd.DataFrame({"a": [1, 2]})).rows == (("1",), ("2",))


def test_a_latex_line_never_begins_with_what_the_line_above_would_take_as_its_argument() -> None:
    latex = Table(("[a]", "b"), (("[x", "[y"), ("*", "2"), (" [z", "3"))).latex()
    assert [line.split(" &")[0] for line in latex.splitlines() if " & " in line] == ["{}[a]", "{}[x", "{}*", "{} [z"]
    assert "& [y" in latex
