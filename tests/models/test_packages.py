"""A model from an installed Python package."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from saffron.config import PackageModel
from saffron.hub import SourceError
from saffron.models import packages

CONTENT = b"GGUF, not really"
KEY = "models.hub.policy"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageModel:
    """A package made-up-weights, as an installer leaves one, that holds weights.gguf."""
    site = tmp_path / "site"
    described = site / "made_up_weights-1.0.dist-info"
    for path, text in {
        described / "METADATA": b"Metadata-Version: 2.1\nName: made-up-weights\nVersion: 1.0\n",
        described / "RECORD": b"made_up/weights.gguf,,\n",
        site / "made_up/weights.gguf": CONTENT,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    monkeypatch.syspath_prepend(str(site))
    digest = hashlib.sha256(CONTENT).hexdigest()
    return PackageModel(package="made-up-weights", gguf="made_up/weights.gguf", sha256=digest)


def test_the_file_of_an_installed_package_is_found(installed: PackageModel) -> None:
    assert packages.find(installed, KEY).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"package": "absent-weights"},
            r"policy\.package: the Python package absent-weights is not installed: run `make env-smollm`",
        ),
        (
            {"gguf": "made_up/other.gguf"},
            r"policy\.gguf: made-up-weights 1\.0 holds no made_up/other\.gguf; it holds made_up/weights",
        ),
        (
            {"sha256": "0" * 64},
            r"policy\.sha256: made_up/weights\.gguf of made-up-weights 1\.0 has the digest [0-9a-f]{64}, not 0000",
        ),
    ],
)
def test_what_is_missing_or_another_is_named_with_its_remedy(
    installed: PackageModel, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        packages.fetch(installed.model_copy(update=change), KEY, tmp_path / "cache")


def test_a_file_that_is_no_model_leaves_nothing_behind(installed: PackageModel, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"models\.hub\.policy: .*(no model that transformers reads|the Python package gguf)"):
        packages.fetch(installed, KEY, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []


def test_a_model_is_converted_once(installed: PackageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []

    def convert(source: Path, target: Path, key: str) -> None:
        converted.append(source.name)
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(packages, "convert", convert)
    folders = {packages.fetch(installed, KEY, tmp_path / "cache") for _ in range(2)}
    assert converted == ["weights.gguf"]
    assert [folder.name for folder in folders] == [f"made-up-weights-{installed.sha256[:16]}"]
