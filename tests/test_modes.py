from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from saffron import models, records


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o007, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """What the user of a machine keeps from others: writing, everything from strangers, everything."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_file_gets_the_mode_that_the_user_gives_files(umask: int, tmp_path: Path) -> None:
    tensors = {"x": torch.ones(2)}
    with records.replacing(tmp_path / "sub/one.safetensors") as temporary:
        save_file(tensors, temporary)
    records.write_json(tmp_path / "record.json", {})
    models.save_mrm_head(tmp_path, torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    private = tmp_path / "private"
    private.touch(0o600)
    with records.replacing_folder(tmp_path / "folder") as folder:
        (folder / "inner").mkdir()
        save_file(tensors, folder / "inner/two.safetensors")
        (folder / "link").symlink_to(private)
    files = ["sub/one.safetensors", "record.json", models.HEAD, "folder/inner/two.safetensors"]
    assert {name: mode(tmp_path / name) for name in files} == dict.fromkeys(files, 0o666 & ~umask)
    assert mode(tmp_path / "folder") == mode(tmp_path / "folder/inner") == 0o777 & ~umask
    assert mode(private) == 0o600  # a snapshot's files belong to the hub's cache
