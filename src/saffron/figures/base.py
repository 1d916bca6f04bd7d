"""What a figure or table of the report is: an :class:`Exhibit`, described once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from saffron import plugins, roles
from saffron.config import Config, Group
from saffron.layout import Layout
from saffron.roles import Role

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View
    from saffron.table import Table

Made = TypeVar("Made")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")


class FigureError(ValueError):
    """An exhibit that is not there or is described wrongly; names it."""


def has_runs(config: Config, role: Role, *methods: str) -> bool:
    """Whether the experiment of a role runs these methods with settings_id default (for :attr:`Exhibit.wanted`)."""
    name = roles.holder(config.search, role)
    runs = [] if name is None else config.search.experiments[name].runs
    return {run.method for run in runs if run.settings_id == "default"} >= set(methods)


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A figure, a table or both, described once; workflow, notebooks, report and published records read this.

    Its file loads no matplotlib and no pandas at its top, since every job of the workflow reads the descriptions.

    Args:
        title: heading in its notebook and, where several stand together, in the report.
        about: how to read it, a few sentences.
        section: the report's section it stands in (``report.SECTIONS``, or a heading of one's own); None: none.
        order: place within the section, and among the exhibits of one notebook.
        draw: the figure, for the results of a run.
        caption: what stands below the figure: what it shows, on how many prompts.
        alt: what a reader who cannot see the figure is told; its caption where there is none.
        table: the table, caption included.
        needs: roles that experiments of the config must have, whatever these are called.
        wanted: what else the config must say.
        reads: roles whose experiments' stored outputs it reads one by one, beside the analysis.
        experiments: the same by name, for what there is one of for each experiment.
        page: name of the exhibit in whose notebook it is made (default: its own); each notebook starts a process.
        notebook: the notebook that makes it, ``notebooks/<notebook>.ipynb``.
        group: the experiments it shows: of ``make replicate`` or of ``make ablations``.
        published: whether its table is part of the published record of a run.
        name: of its files and its notebook; given by discovery.
        module: whose code it is; given by discovery.
    """

    title: str
    about: str
    section: str | None
    order: int = 0
    draw: Callable[[View], Figure] | None = None
    caption: Callable[[View], str] | None = None
    alt: Callable[[View], str] | None = None
    table: Callable[[View], Table] | None = None
    needs: tuple[Role, ...] = ()
    wanted: Callable[[Config], bool] = lambda config: True
    reads: tuple[Role, ...] = ()
    experiments: tuple[str, ...] = ()
    page: str | None = None
    notebook: str = "figure"
    group: Group = "replicate"
    published: bool = True
    name: str = ""
    module: str = ""

    def __post_init__(self) -> None:
        if self.draw is None and self.table is None:
            raise FigureError(f"exhibit {self.title!r}: draws no figure and makes no table; give it one")
        if self.draw is not None and self.caption is None:
            raise FigureError(f"exhibit {self.title!r}: a figure without a caption; say what it shows and on how many prompts")
        for role in (*self.needs, *self.reads):
            if role not in roles.ROLES:
                raise FigureError(f"exhibit {self.title!r}: no role {role!r}; there are {', '.join(roles.ROLES)}")

    def given(self, config: Config) -> bool:
        """Whether a config has what it needs."""
        return all(roles.holders(config.search, role) for role in self.needs) and self.wanted(config)

    def outputs(self, config: Config) -> list[str]:
        """Names of the experiments whose stored outputs it reads one by one."""
        read = {name for role in self.reads for name in roles.holders(config.search, role)}
        return sorted(read | set(self.experiments))

    @property
    def made_by(self) -> str:
        """The page whose notebook makes it."""
        return self.page or self.name

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of its files."""
        return (("pdf", "png") if self.draw else ()) + (("csv", "md", "tex") if self.table else ())

    def files(self, layout: Layout) -> list[str]:
        """Paths of its files."""
        return [(layout.figures / f"{self.name}.{suffix}").as_posix() for suffix in self.suffixes]

    def alt_text(self, view: View) -> str:
        """What a reader who cannot see the figure is told."""
        words = self.alt or self.caption
        return "" if words is None else words(view)

    def save(self, view: View) -> None:
        """Make it from a run's results and write its files.

        Raises:
            RecordError: if a result is missing or incomplete.
        FigureError: if a function of a package of the user's fails, or gives neither figure nor table.
        """
        if self.draw is not None:
            from saffron.figures import style

            style.save(self._made(self.draw, view, "savefig"), view.layout.figures, self.name)
        if self.table is not None:
            from saffron import table

            table.save(self._made(self.table, view, "markdown_rows"), view.layout.figures, self.name)

    def _made(self, make: Callable[[View], Made], view: View, needs: str) -> Made:
        """What a function of the exhibit gives; one of a package of the user's may fail, or give something else."""
        try:
            made = make(view)
        except Exception as error:
            where = plugins.outside(error)
            if where is None:
                raise
            raise FigureError(f"{self.name} ({self.module}): {type(error).__name__}: {error} ({where}); mend it there") from error
        if not hasattr(made, needs):
            raise FigureError(
                f"{self.name} ({self.module}): draw must give a matplotlib figure, table a saffron.table.Table, not a "
                f"{type(made).__name__}"
            )
        return made
