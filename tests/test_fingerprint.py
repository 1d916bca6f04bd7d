from __future__ import annotations

import hashlib

import pytest

from saffron import records
from saffron.fingerprint import fingerprint


def test_changes_with_settings_and_files_and_with_nothing_else(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    key = fingerprint({"a": 1, "b": 2}, [file])
    assert key == fingerprint({"b": 2, "a": 1}, [file])
    assert key != fingerprint({"a": 1, "b": 3}, [file])
    file.write_bytes(b"two")
    assert key != fingerprint({"a": 1, "b": 2}, [file])


def test_a_folder_stands_for_its_files(tmp_path):
    (tmp_path / "b").write_text("b")
    (tmp_path / "a").write_text("a")
    before = fingerprint(None, [tmp_path])
    (tmp_path / "a").rename(tmp_path / "c")
    assert fingerprint(None, [tmp_path]) != before


def test_a_file_of_the_hubs_cache_is_known_by_the_digest_it_is_stored_under(tmp_path):
    digest = hashlib.sha256(b"weights").hexdigest()
    blob = tmp_path / "blobs" / digest
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    for folder in (plain, linked):
        folder.mkdir()
    (plain / "model.safetensors").write_bytes(b"weights")
    (linked / "model.safetensors").symlink_to(blob)
    assert fingerprint(None, [linked]) == fingerprint(None, [plain])
    blob.write_bytes(b"not read again")
    assert fingerprint(None, [linked]) == fingerprint(None, [plain])
    (linked / "config.json").symlink_to(plain / "model.safetensors")  # a link to anything else is read
    assert fingerprint(None, [linked]) != fingerprint(None, [plain])


def test_missing_inputs_are_named(tmp_path):
    with pytest.raises(records.RecordError, match="absent"):
        fingerprint(None, [tmp_path / "absent"])
