from __future__ import annotations

import pytest
import synthetic_results

from saffron import jobs
from saffron.analysis import stage as analysis
from saffron.analysis.view import View
from saffron.layout import Layout


@pytest.fixture(scope="session")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """A finished, analysed run; not to be edited."""
    config = synthetic_results.config(prompts=40)
    layout = Layout(config.name, tmp_path_factory.mktemp("figures"))
    synthetic_results.write(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    return View.of(config, layout)
