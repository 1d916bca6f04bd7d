"""What nothing that comes from elsewhere can do here (docs/security.md)."""

from __future__ import annotations

import ast
import gzip
import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from saffron import secrets
from saffron.config import loading
from saffron.models import checkpoint
from saffron.mrm import release
from saffron.mrm.release import ReleaseError
from saffron.sources import files
from saffron.sources.reading import SourceError

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


# -------------------------------------------------------------------------------------------------------------- our own code
def calls() -> list[tuple[str, str, dict[str, ast.expr]]]:
    """Every call in the package: file, dotted name, keywords."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                keywords = {word.arg: word.value for word in node.keywords if word.arg}
                found.append((str(path.relative_to(ROOT)), ast.unparse(node.func), keywords))
    return found


def said(keywords: dict[str, ast.expr], name: str) -> object:
    value = keywords.get(name)
    return value.value if isinstance(value, ast.Constant) else None


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    forbidden = {"eval", "exec", "pickle.load", "pickle.loads", "joblib.load", "yaml.unsafe_load", "yaml.full_load", "os.system"}
    assert issubclass(loading._UniqueKeys, yaml.SafeLoader)  # what the one yaml.load is given
    assert [file for file, name, _ in calls() if name == "yaml.load"] == ["src/saffron/config/loading.py"]
    for file, name, keywords in calls():
        assert name not in forbidden, f"{file}: {name}"
        assert said(keywords, "shell") is not True and said(keywords, "allow_pickle") is not True, f"{file}: {name}"
        assert said(keywords, "trust_remote_code") in (None, False), f"{file}: {name}"
        if name == "torch.load":
            assert said(keywords, "weights_only") is True, file


def test_no_model_or_tokenizer_is_loaded_without_saying_that_its_code_is_not_run() -> None:
    called = [(file, name, keywords) for file, name, keywords in calls() if name.startswith("Auto")]
    loaders = [(file, keywords) for file, name, keywords in called if name.endswith("from_pretrained")]
    assert len(loaders) > 3
    for file, keywords in loaders:
        assert said(keywords, "trust_remote_code") is False or file.endswith("packages.py"), file


# ------------------------------------------------------------------------------------------------------------- checkpoints
@pytest.mark.parametrize(
    "name", ["../elsewhere.safetensors", "/etc/passwd", "a/b.safetensors", "weights.bin", 7, "..\\x.safetensors"]
)
def test_an_index_names_safetensors_files_beside_it_alone(tmp_path: Path, name: object) -> None:
    index = tmp_path / checkpoint.INDEX
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}))
    with pytest.raises(ValueError, match="only safetensors files beside it are read"):
        checkpoint.parts(index)
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert checkpoint.parts(index) == ["model-1.safetensors"]


class Dangerous:
    """What a pickle can hold: it leaves a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a pickle", b"\x80\x04", pickle.dumps([1]), b"PK\x03\x04" + bytes(40), None],
    ids=["empty", "text", "cut short", "a list", "an empty archive", "a program"],
)
def test_what_is_no_tensor_in_a_pt_file_is_refused_and_not_run(tmp_path: Path, content: bytes | None) -> None:
    left, path = tmp_path / "left", tmp_path / release.MASK
    path.write_bytes(pickle.dumps(Dangerous(left)) if content is None else content)
    with pytest.raises(ReleaseError, match=release.MASK):
        release._read_pickled(path)
    assert not left.exists()


@pytest.mark.parametrize("odd", [torch.ones(3).to_sparse(), torch.ones(3, device="meta")], ids=["sparse", "meta"])
def test_a_tensor_without_plain_numbers_is_refused(tmp_path: Path, odd: torch.Tensor) -> None:
    torch.save(odd, tmp_path / release.BIAS)
    with pytest.raises(ReleaseError, match=r"lm_head|bias"):
        release._read_pickled(tmp_path / release.BIAS)


# ---------------------------------------------------------------------------------------------------------------- datasets
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b"[" * 100_000),
        ("rows.jsonl", b'{"a": ' + b"9" * 5000 + b"}"),
        ("rows.json", b"[" * 100_000),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:30] + bytes(40)),
        ("rows.parquet", b"PAR1" + bytes(50)),
        ("rows.jsonl", b"\xff\xfe\x00"),
    ],
    ids=["nested lines", "a long number", "nested", "a broken archive", "no parquet", "no UTF-8"],
)
def test_a_damaged_or_hostile_data_file_is_one_message(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="rows"):
        list(files._values(tmp_path / name, name))


# ----------------------------------------------------------------------------------------------------------------- secrets
def test_secrets_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token-of-mine")
    monkeypatch.setenv("WANDB_API_KEY", "key-of-mine-1")
    monkeypatch.setenv("HOME_TOKEN", "the")  # so short that it would be hidden by chance
    text = "https://user:pass-word@hub/x Authorization: Bearer abc.def a-token-of-mine key-of-mine-1 hf_ABCDEFGH12 the \x1b[2J"
    shown = secrets.hidden(text)
    assert not [secret for secret in ("pass-word", "abc.def", "a-token", "key-of", "ABCDEFGH", "\x1b") if secret in shown]
    assert "https://***@hub/x" in shown and " the " in shown
    assert secrets.hidden("two\nlines\tand “signs” ±.04 ✓") == "two\nlines\tand “signs” ±.04 ✓"


def test_what_libraries_log_and_errors_say_is_hidden_in_a_command() -> None:
    code = (
        "import logging, sys\nfrom saffron import cli\n"
        "def broken():\n    logging.getLogger('hub').warning('retry %s', 'http://me:hush-hush@host')\n"
        "    raise RuntimeError('http://me:hush-hush@host')\n"
        "cli.app = broken\ncli.main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1
    assert "hush-hush" not in result.stdout + result.stderr
    assert "retry http://***@host" in result.stderr and "saffron doctor" in result.stderr


def test_a_message_that_does_not_fit_its_arguments_is_left_to_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    before = logging.getLogRecordFactory()
    try:
        secrets.hide_in_logs()
        record = logging.getLogRecordFactory()("name", logging.INFO, "path", 1, "%d", ("x",), None)
        assert record.args == ("x",)
    finally:
        logging.setLogRecordFactory(before)
