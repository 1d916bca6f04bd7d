from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saffron import config as configs
from saffron import records, workflow
from saffron.analysis import stage
from saffron.analysis.sections import trained
from saffron.figures import discovery
from saffron.figures.exhibits import trained_models
from saffron.layout import Layout

ROOT = Path(__file__).parents[2]


def guard(labels: str, auc: float, pairs: int = 4) -> dict[str, Any]:
    """A guard's own record."""
    kind = {"share": 0.1, "auc": auc, "pairs": pairs, "pair_accuracy": 0.75 if pairs else None}
    return {"labels": labels, "responses": 1140, "refusals": kind, "preference": kind | {"auc": 0.5}}


def policy(after: float) -> dict[str, Any]:
    """A policy's own record."""
    before = {"requests": 44, "unattacked": 0.0, "attacked": None}
    return {"before": before, "after": before | {"unattacked": after, "attacked": 0.25}}


def test_the_table_has_means_and_ranges_over_seeds() -> None:
    found = {
        "policy": {"0": policy(1.0), "1": policy(0.5)},
        "guard": {"0": guard("refusals", 0.9), "1": guard("refusals", 0.9, pairs=0)},
    }
    view: Any = SimpleNamespace(analysis={"train_seeds": [0, 1]}, section=lambda name: {"trained_models": found}[name])
    rows = trained_models.table(view).rows
    assert ("policy", "declines, not attacked, before the tuning", "44", "0.000") in rows
    assert ("policy", "declines, not attacked, after the tuning", "44", "0.750 (0.500–1.000)") in rows
    assert ("policy", "declines, attacked, before the tuning", "44", "–") in rows
    assert ("guard, taught refusals", "AUC, does the answer decline", "1,140", "0.900") in rows
    assert ("guard, taught refusals", "pairs, does the answer decline", "2 (0–4)", "0.750") in rows
    assert len(rows) == 8


@pytest.mark.parametrize(("config", "names"), [("smollm", ["policy", "guard", "other_guard"]), ("sandbox", []), ("paper", [])])
def test_only_what_was_trained_from_the_hubs_is_read(
    config: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFFRON_HH_RLHF_DIR", str(tmp_path))
    settings, layout = configs.load(ROOT / f"config/{config}.yaml"), Layout(config, tmp_path)
    assert workflow.trained_from_hub(settings) == names
    assert ("trained_models" in discovery.exhibits(settings)) == bool(names)
    read = [path for path in stage.inputs(settings, layout) if path.name == "held_out.json"]
    assert read == [layout.held_out(name, seed) for name in names for seed in settings.train_seeds]
    for path in read:
        records.write_json(path, {"of": str(path.parent.name)})
    study: Any = SimpleNamespace(config=settings, layout=layout)
    record = trained.section(study).record
    assert record == (
        {"trained_models": {name: {str(seed): {"of": name} for seed in settings.train_seeds} for name in names}} if names else {}
    )
