"""``runtime.dtype: auto``: measured, chosen once, stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from saffron import config as configs
from saffron import records
from saffron.config import Config, Runtime
from saffron.layout import Layout
from saffron.models import precision
from saffron.runs import provenance

ROOT = Path(__file__).parents[2]


@pytest.fixture
def auto() -> Config:
    values = configs.as_dict(configs.load(ROOT / "config/smoke.yaml"))
    values["runtime"]["dtype"] = "auto"
    return configs.parse(values, "test")


def machine(monkeypatch: pytest.MonkeyPatch, instructions: bool, float32: float = 1.0, bfloat16: float = 1.0) -> None:
    """A machine on which the measured work takes these seconds."""
    seconds = {torch.float32: float32, torch.bfloat16: bfloat16}
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: instructions)
    monkeypatch.setattr(precision, "measured", lambda dtype, device, threads: seconds[dtype])


@pytest.mark.parametrize(
    ("instructions", "float32", "bfloat16", "chosen"),
    [(True, 4.0, 1.0, "bfloat16"), (True, 1.1, 1.0, "float32"), (True, 1.0, 4.0, "float32"), (False, 4.0, 1.0, "float32")],
)
def test_bfloat16_needs_the_instructions_and_has_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, instructions: bool, float32: float, bfloat16: float, chosen: str
) -> None:
    machine(monkeypatch, instructions, float32, bfloat16)
    found = precision.choose(Runtime(device="cpu", dtype="auto"))
    assert found["dtype"] == chosen and found["instructions"] is instructions
    assert found["seconds"] == ({"float32": float32, "bfloat16": bfloat16} if instructions else None)


def test_the_choice_is_made_once_per_run_and_stands_in_its_provenance(
    auto: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(auto.name, tmp_path)
    machine(monkeypatch, True, 4.0, 1.0)
    assert precision.resolved(auto, layout).runtime.dtype == "bfloat16"
    machine(monkeypatch, False)  # the run goes on where bfloat16 would not have been chosen
    again = precision.resolved(auto, layout)
    assert again.runtime.dtype == "bfloat16" and again.runtime.device == auto.runtime.device
    assert records.read_json(layout.dtype_record)["seconds"] == {"float32": 4.0, "bfloat16": 1.0}
    assert provenance.dtype(again, layout)["seconds"] == {"float32": 4.0, "bfloat16": 1.0}


def test_a_fixed_dtype_is_kept_and_nothing_is_written(tmp_path: Path) -> None:
    config = configs.load(ROOT / "config/smoke.yaml")
    layout = Layout(config.name, tmp_path)
    assert precision.resolved(config, layout) is config
    assert list(tmp_path.iterdir()) == []
    assert provenance.dtype(config, layout) == {"dtype": "float32"}


def test_this_machine_is_measured_with_the_configs_threads_and_left_as_it_was() -> None:
    before = torch.get_num_threads()
    assert precision.measured(torch.float32, torch.device("cpu"), 1) > 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_are_computed_in_the_runs_dtype_and_gradients_stay_float32(dtype: str) -> None:
    layer: Any = torch.nn.Linear(4, 4)
    layer.device = torch.device("cpu")
    products = []

    def loss_of(model: Any, rows: torch.Tensor) -> torch.Tensor:
        products.append(model(rows))
        return products[-1].float().sum()

    precision.mixed(loss_of, dtype)(layer, torch.ones(2, 4)).backward()
    assert products[0].dtype == getattr(torch, dtype)
    assert layer.weight.grad.dtype == torch.float32
