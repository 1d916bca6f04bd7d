from __future__ import annotations

import pytest
import synthetic_results

from saffron import jobs
from saffron.analysis import stage as analysis
from saffron.analysis.study import Study
from saffron.config import Config
from saffron.layout import Layout


@pytest.fixture(scope="session")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Layout]:
    """A finished, analysed run with one training seed."""
    config = synthetic_results.config()
    layout = Layout(config.name, tmp_path_factory.mktemp("one"))
    synthetic_results.write(config, layout)
    analysis.run(jobs.analyse(config).config, layout)
    return config, layout


@pytest.fixture(scope="session")
def three_seeds(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Results of three training seeds, not analysed yet."""
    config = synthetic_results.config(seeds=(0, 1, 2))
    layout = Layout(config.name, tmp_path_factory.mktemp("three"))
    synthetic_results.write(config, layout)
    return Study(config, layout)
