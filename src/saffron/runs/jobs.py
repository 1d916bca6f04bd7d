"""What the jobs read that draw and write a run (:mod:`saffron.jobs`)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import Field

from saffron import code
from saffron.config import Ablation, Config, Report
from saffron.figures import discovery
from saffron.jobs import Job, shown

#: What says how the report looks.
TEMPLATES = Path(__file__).with_name("templates")


class NotebookJob(Job):
    """Executing a notebook for one page; its code is what it imports and the files of the figures and tables it makes."""

    exhibits: list[str]

    report: Report
    ablation: Ablation | None
    methods: dict[str, dict[str, Any]] = Field(..., description="how every method is described that the config runs")


class ReportJob(Job):
    """Writing the HTML report."""

    report: Report
    methods: dict[str, dict[str, Any]] = Field(..., description="how every method is described that the config runs")
    templates: dict[str, str] = Field(..., description="sha256 of what says how the page looks")
    published: dict[str, str] = Field(..., description="sha256 of our published records, which a run is compared with")


def notebook(config: Config, page: str) -> NotebookJob:
    """The notebook of a page: a figure or table with what is read beside it.

    Raises:
        FigureError: if the config has no such page.
    """
    exhibits = discovery.page(config, page)
    cells = code.digest_of_notebook(Path(f"notebooks/{exhibits[0].notebook}.ipynb"))
    drawn = code.digest(*sorted({exhibit.module for exhibit in exhibits}))
    return NotebookJob(
        code=hashlib.sha256(f"{cells}{drawn}".encode()).hexdigest()[:16],
        exhibits=[exhibit.name for exhibit in exhibits],
        report=config.report,
        ablation=config.analysis.ablations.get(page),
        methods=shown(config),
    )


def report(config: Config) -> ReportJob:
    """The HTML report.

    Our published records enter by their content, so that it is written again when one is published and not when a clone dates
    them anew.
    """
    files = sorted(Path("data/reference/ours").glob("*.json"))
    published = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    templates = sorted(TEMPLATES.glob("*.html"))
    return ReportJob(
        code=code.digest("saffron.runs.report", *discovery.modules()),
        report=config.report,
        methods=shown(config),
        templates={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in templates},
        published=published,
    )
