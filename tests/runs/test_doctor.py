from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from saffron import plugins
from saffron.runs import doctor

ROOT = Path(__file__).parents[2]
CPU = doctor.Device("2.13.0+cpu", None, ())


def test_a_report_has_everything_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "device", lambda: CPU)
    environment = {
        "HF_TOKEN": "hf_not_to_be_seen",
        "PIP_EXTRA_INDEX_URL": "https://me:secret@index.example",
        "HF_HOME": f"{Path.home()}/models",
        "SOMETHING_ELSE": "hidden",
    }
    text = doctor.render(doctor.sections(ROOT, environment))
    titles = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert titles == ["versions", "device", "locale", "paths", "environment", "installed beside", "odd"]
    assert "2.13.0+cpu" in text and "transformers" in text
    assert [secret for secret in ("hf_not_to_be_seen", "secret", "hidden") if secret in text] == []
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith("  ") and len(line.split()) > 1}
    assert lines["HF_TOKEN"] == ["set"] and lines["HF_HOME"] == ["~/models"]


def found(root: Path, versions: dict[str, str | None] | None = None, on: doctor.Device = CPU, **environment: str) -> str:
    return "\n".join(doctor.odd(root, versions or {}, on, environment))


def test_what_is_odd_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("# pins\nnumpy==2.4.6\nPyYAML==6.0.3\n")
    assert "no Snakefile in this folder" in found(tmp_path)
    assert "numpy 2.3.0 (pinned 2.4.6); delete .venv" in found(tmp_path, {"numpy": "2.3.0", "pyyaml": "6.0.3"})
    assert "other versions" not in found(tmp_path, {"numpy": "2.4.6+local", "pyyaml": "6.0.3", "unpinned": "1"})
    assert "not installed: peft" in found(tmp_path, {"peft": None})
    assert "sees no GPU" in found(tmp_path, on=doctor.Device("2.13.0", "12.8", ()))
    assert "sees no GPU" not in found(tmp_path, on=doctor.Device("2.13.0", "12.8", ("a GPU",)))
    assert "torch cannot be imported (OSError: gone)" in found(tmp_path, on=doctor.Device(None, None, (), "OSError: gone"))
    assert "PYTHONPATH" in found(tmp_path, PYTHONPATH="/somewhere")


def test_little_memory_and_disk_are_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GiB" not in found(tmp_path)
    monkeypatch.setattr(doctor, "MEMORY", 1e6)
    monkeypatch.setattr(doctor, "DISK", 1e6)
    assert found(tmp_path).count("the sandbox wants") == 2


def test_a_broken_torch_is_said_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    assert doctor.device().error is not None


def test_what_is_installed_and_cannot_be_loaded_is_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "no_such_module:THING", "saffron.judges")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if point.group == group else [])
    assert "entry point of saffron.judges mine: no_such_module:THING cannot be loaded" in found(tmp_path)
