from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save

from saffron import models
from saffron.config import Runtime
from saffron.engine.trie import TokenTrie
from saffron.layout import Layout
from saffron.records import RecordError

RUNTIME = Runtime(device="cpu", dtype="float32")


@pytest.fixture
def trained(layout: Layout, tmp_path: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """A merged MRM whose bias is 1000 on token 300: (folder, ids, its logits without the bias)."""
    guard = models.load_lm(layout.model("guard", 0), RUNTIME)
    peft = get_peft_model(guard, LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    ids = torch.arange(5, 25)[None]
    peft.eval()
    logits = peft(ids).logits
    peft.merge_and_unload().save_pretrained(tmp_path / "merged")
    bias = torch.zeros(logits.shape[-1])
    bias[300] = 1000
    unseen = torch.zeros(logits.shape[-1], dtype=torch.bool)
    unseen[[1, 7]] = True
    models.save_mrm_head(tmp_path, bias, unseen)
    return tmp_path, ids, logits.detach()


def test_the_bias_survives_saving_loading_and_merging(trained: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    folder, ids, without = trained
    model, unseen = models.load_mrm(folder, RUNTIME)
    difference = model(ids).logits - without
    torch.testing.assert_close(difference[..., 300], torch.full_like(difference[..., 300], 1000), atol=1e-2, rtol=0)
    others = torch.arange(difference.shape[-1]) != 300
    assert difference[..., others].abs().max() < 1e-4
    assert unseen.dtype == torch.bool and unseen.nonzero()[:, 0].tolist() == [1, 7]
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_head_of_another_size_is_refused(trained: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    folder, _, _ = trained
    models.save_mrm_head(folder, torch.zeros(9), torch.zeros(9, dtype=torch.bool))
    with pytest.raises(models.ModelError, match="9 tokens"):
        models.load_mrm(folder, RUNTIME)


def test_missing_folders_are_named_with_the_stage_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(models.ModelError, match=f"{tmp_path.name}.*run the stage"):
        models.load_lm(tmp_path, RUNTIME)
    with pytest.raises(models.ModelError, match="stage models"):
        models.load_tokenizer(tmp_path)
    with pytest.raises(models.ModelError, match="stage mrm"):
        models.load_mrm(tmp_path, RUNTIME)


def _halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _drop_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.gate_proj.weight"]
    path.write_bytes(save(tensors, {"format": "pt"}))  # as a whole: the tensors are mapped from the file


@pytest.mark.parametrize(
    ("file", "spoil", "cause"),
    [
        ("model.safetensors", _halve, "SafetensorError"),
        ("model.safetensors", _drop_a_tensor, "gate_proj.weight'] are missing"),
        ("config.json", _halve, "config.json is not JSON"),
    ],
)
def test_a_broken_model_is_named_with_cause_and_remedy(
    layout: Layout, tmp_path: Path, file: str, spoil: Callable[[Path], None], cause: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(layout.model("guard", 0), folder)
    spoil(folder / file)
    with pytest.raises(models.ModelError) as error:
        models.load_lm(folder, RUNTIME)
    message = str(error.value)
    assert message.startswith(f"{folder}: not a readable model (") and cause in message
    assert "delete the folder and run the stage models" in message and "\n" not in message


def test_a_broken_tokenizer_is_named(layout: Layout, tmp_path: Path) -> None:
    shutil.copytree(layout.tokenizer, tmp_path / "copy")
    path = tmp_path / "copy/tokenizer.json"
    _halve(path)
    with pytest.raises(models.ModelError, match=r"copy: not a readable tokenizer .*; delete the folder"):
        models.load_tokenizer(path.parent)


def test_a_broken_head_is_named(trained: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    folder, _, _ = trained
    _halve(folder / models.HEAD)
    with pytest.raises(RecordError, match=rf"{models.HEAD}: not a readable safetensors file .*; delete it"):
        models.load_mrm(folder, RUNTIME)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_models_are_loaded_frozen_in_the_runtimes_dtype(layout: Layout, dtype: str) -> None:
    model = models.load_lm(layout.model("policy", 0), Runtime(device="cpu", dtype=dtype), attn="eager")  # type: ignore[arg-type]
    assert model.dtype == getattr(torch, dtype)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "eager"


def test_accelerate_places_the_same_model(layout: Layout) -> None:
    ids = torch.arange(5, 25)[None]
    plain, mapped = (models.load_lm(layout.model("guard", 0), RUNTIME, device_map=how) for how in (None, "auto"))  # type: ignore[arg-type]
    assert torch.equal(plain(ids).logits, mapped(ids).logits)
    assert not mapped.training and not any(parameter.requires_grad for parameter in mapped.parameters())
    trie = TokenTrie(mapped, ids.tolist())  # no hook of accelerate is left where the engine reaches in
    assert trie.root_logits is not None
    torch.testing.assert_close(trie.root_logits, mapped(ids).logits[:, -1], atol=1e-4, rtol=0)


def test_a_model_that_one_gpu_does_not_hold_is_refused_before_its_weights_are_read(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(layout.model("guard", 0), folder)
    weights = sum(parameter.numel() for parameter in models.load_lm(folder, RUNTIME).parameters())
    monkeypatch.setattr("saffron.models.device.free_bytes", lambda _: 2 * weights)
    models.load_lm(folder, Runtime(device="cpu", dtype="bfloat16"))  # fits to the byte
    for path in folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(
        models.ModelError, match=r"copy: the weights take .* GB are free .* one GPU as a whole .*: use a GPU with"
    ):
        models.load_lm(folder, RUNTIME, device_map="auto")
