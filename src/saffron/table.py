"""The one table that everything prints and stores: text cells, as CSV, Markdown, LaTeX and aligned text.

It stands below the figures since the analysis, the plan and our pages write tables too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saffron.records import replacing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table of text cells; ``caption`` says what it shows and on how many prompts.

    The first ``groups`` columns sort the rows into groups. Their cells are printed at the head of each group alone, but in
    every row of the CSV, which programs read.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    groups: int = 0

    @classmethod
    def of(cls, frame: pd.DataFrame, caption: str = "", groups: int = 0) -> Table:
        """The table of a frame of text cells."""
        rows = frame.itertuples(index=False, name=None)
        return cls(tuple(map(str, frame.columns)), tuple(tuple(map(str, row)) for row in rows), caption, groups)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The cells, every row whole."""
        return _frame(self.columns, self.rows)

    @property
    def printed_rows(self) -> tuple[tuple[str, ...], ...]:
        """The rows as a reader sees them."""
        return tuple(self._printed(above, row) for above, row in zip(((), *self.rows), self.rows, strict=False))

    def _printed(self, above: tuple[str, ...], row: tuple[str, ...]) -> tuple[str, ...]:
        same = next((i for i in range(self.groups) if above[i : i + 1] != row[i : i + 1]), self.groups)
        return ("",) * same + row[same:]

    def csv(self) -> str:
        """Comma-separated values."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    def markdown(self) -> str:
        """A Markdown table with its caption above."""
        return f"{self.caption}\n\n{self.markdown_rows()}"

    def markdown_rows(self, right: Collection[str] = ()) -> str:
        """The table alone. Not pandas' own, which pads every cell to the widest: one number would change every line.

        Args:
            right: columns of numbers, aligned to the right.
        """
        lines = [self.columns, tuple("---:" if column in right else "---" for column in self.columns), *self.printed_rows]
        return "".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |\n" for line in lines)

    def text(self) -> str:
        """The caption and the table in aligned columns, for a terminal."""
        lines = [self.columns, *self.printed_rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*([textwrap.fill(self.caption, 120), ""] if self.caption else []), *padded])

    def latex(self) -> str:
        """A ``booktabs`` table."""
        escaped = _frame(_latex_row(self.columns), tuple(map(_latex_row, self.printed_rows)))
        body = escaped.to_latex(index=False, escape=False, column_format="l" * len(self.columns))
        return (
            f"\\begin{{table}}\n\\centering\n\\resizebox{{\\linewidth}}{{!}}{{%\n{body.rstrip()}}}\n"
            f"\\caption{{{_latex(self.caption)}}}\n\\end{{table}}\n"
        )


def save(table: Table, folder: str | Path, name: str) -> None:
    """Write ``<name>.csv``, ``.md`` and ``.tex``."""
    for suffix, text in (("csv", table.csv()), ("md", table.markdown()), ("tex", table.latex())):
        with replacing(Path(folder) / f"{name}.{suffix}") as temporary:
            temporary.write_text(text, "utf-8")


def _frame(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Any:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns), dtype=object)


def _latex_row(row: tuple[str, ...]) -> tuple[str, ...]:
    # The end of a line above takes [ or * as its argument.
    return tuple(("{}" if i == 0 and cell.lstrip()[:1] in ("[", "*") else "") + _latex(cell) for i, cell in enumerate(row))


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "–": "--", "×": r"$\times$", "≤": r"$\leq$", "²": r"$^2$", "−": "$-$", "…": r"\dots{}"}
    special |= {character: "\\" + character for character in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"“": "``", "”": "''", "Σ": r"$\Sigma$", "<": "$<$", ">": "$>$"}
    return "".join(special.get(character, character) for character in text)
