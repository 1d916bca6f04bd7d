from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from replica import config as replica_config
from replica import models as replica_models
from replica import tokenizer as replica_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken

from saffron import config, jobs, models
from saffron.chat import ChatFormatError, ChatFormats
from saffron.config import Config, ConfigError
from saffron.hub import SourceError
from saffron.layout import Layout
from saffron.models import hub, making
from saffron.section import HubFile


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replica")
    replica_config.write(folder)
    return folder


@pytest.fixture
def run(mirror: Path, tmp_path: Path) -> tuple[Config, Layout]:
    """A config whose mirrors a test may spoil (weights stay shared)."""
    shutil.copytree(mirror / "models", tmp_path / "models", copy_function=shutil.copy)
    text = (mirror / "replica.yaml").read_text().replace(str(mirror / "models"), str(tmp_path / "models"))
    (tmp_path / "replica.yaml").write_text(text)
    return config.load(tmp_path / "replica.yaml"), Layout("replica", tmp_path / "out")


def test_the_fixture_tokenizer_has_llama_3s_layout() -> None:
    tokenizer = replica_tokenizer.build(format_ids=replica_models.format_ids())
    assert len(tokenizer) == 128_256
    named = {"<|begin_of_text|>": 128_000, "<|start_header_id|>": 128_006, "<|end_header_id|>": 128_007, "<|eot_id|>": 128_009}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in named} == named
    assert tokenizer.convert_tokens_to_ids("<|reserved_special_token_250|>") == 128_255
    text = "Please tell me how to bake rye bread: 12 loaves,\n\nthanks! é"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_stage_writes_folders_that_the_loaders_read(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    making.policy(jobs.model(settings, "policy", 0), layout)
    making.guard(jobs.model(settings, "guard", 0), layout)
    formats = ChatFormats.load(layout.tokenizer)
    assert formats == ChatFormats.load(hub.CHAT_FORMATS, policy="llama3_policy")
    formats.verify(models.load_tokenizer(layout.tokenizer))
    policy = models.load_lm(layout.model("policy", 0), settings.runtime)
    assert policy(torch.tensor([[128_000, 882]])).logits.shape == (1, 2, 128_256)
    weights = layout.model("guard", 0) / "model.safetensors"
    assert weights.is_symlink()  # gigabytes are not copied


def test_another_guard_is_of_the_guards_vocabulary_and_loaded_where_it_lies(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    hub_models = settings.models.hub
    assert hub_models is not None
    with pytest.raises(ConfigError, match=r"models\.hub\.other_guard: null; say how to train it"):
        making.other_guard(jobs.model(settings, "other_guard", 0), layout)
    making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    folder = Path(str(hub_models.guard.path))
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    file, key = HubFile(id="someone/judge", path=str(other)), "judges.other.settings.checkpoint"
    found = models.load_lm(hub.checkpoint(file, key, layout), settings.runtime)
    assert found(torch.tensor([[128_000]])).logits.shape[-1] == 128_256
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["Ġbread"], vocabulary["Ġsoup"] = vocabulary["Ġsoup"], vocabulary["Ġbread"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=r"^judges\.other\.settings\.checkpoint: its vocabulary is not the guard's"):
        hub.checkpoint(file, key, layout)
    (other / "model.safetensors").unlink()
    shutil.copyfile(folder / "tokenizer.json", other / "tokenizer.json")
    with pytest.raises(SourceError, match=r"^judges\.other\.settings\.checkpoint: .* lacks config\.json or model"):
        hub.checkpoint(file, key, layout)


def test_reserved_special_tokens_may_differ_in_name(run: tuple[Config, Layout]) -> None:
    settings, _ = run
    assert settings.models.hub is not None
    folders = [Path(str(file.path)) for file in (settings.models.hub.policy, settings.models.hub.guard)]
    policy, guard = (hub.load_tokenizer(folder, "x") for folder in folders)
    assert policy.convert_ids_to_tokens(128_008) != guard.convert_ids_to_tokens(128_008) == "<|eom_id|>"
    hub.check_one_vocabulary(policy, guard, ChatFormats.load(hub.CHAT_FORMATS, policy="llama3_policy"))


def test_another_vocabulary_is_refused_with_the_reason(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    assert settings.models.hub is not None
    guard = Path(str(settings.models.hub.guard.path))
    content = json.loads((guard / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["Ġbread"], vocabulary["Ġsoup"] = vocabulary["Ġsoup"], vocabulary["Ġbread"]
    (guard / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(
        SourceError,
        match=r"2 tokens differ between policy and guard, first \d+ \('Ġ(bread|soup)' in the policy\); the MRM scores",
    ):
        making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    tokenizer = hub.load_tokenizer(guard, "x")
    tokenizer.add_tokens([AddedToken("one more")])
    tokenizer.save_pretrained(guard)
    with pytest.raises(SourceError, match=r"the policy's vocabulary has 128256 tokens, the guard's 128257; the MRM scores"):
        making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    assert not layout.tokenizer.exists()


def test_one_tokenizer_over_lm_heads_of_two_widths_is_refused(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    assert settings.models.hub is not None
    path = Path(str(settings.models.hub.guard.path)) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 128_320}))
    with pytest.raises(SourceError, match=r"the policy gives 128256 logits, the guard 128320; .*models\.hub\.guard"):
        making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    assert not layout.tokenizer.exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "gpt2"}, "model type 'gpt2' is not of the Llama family"),
        ({"model_type": "no such type"}, "no such type"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "depends on the sequence's length"),
    ],
)
def test_a_model_the_engine_cannot_drive_is_refused_before_a_gpu_is_taken(
    run: tuple[Config, Layout], changes: dict[str, object], reason: str
) -> None:
    settings, layout = run
    assert settings.models.hub is not None
    path = Path(str(settings.models.hub.policy.path)) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(SourceError, match=rf"models\.hub\.policy: the engine cannot drive .*{reason}.*; take one of the Llama"):
        making.policy(jobs.model(settings, "policy", 0), layout)
    assert not layout.model("policy", 0).exists()


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("safe", "Ġbread", r"verdict\.safe: id 19193 reads ' bread' in this tokenizer"),
        (">Ċ", "ginger", r"chat format guard\.prefix: .*the formats are not this tokenizer's"),
    ],
)
def test_formats_of_another_tokenizer_are_refused(run: tuple[Config, Layout], one: str, other: str, message: str) -> None:
    settings, layout = run
    assert settings.models.hub is not None
    for file in (settings.models.hub.policy, settings.models.hub.guard):
        path = Path(str(file.path)) / "tokenizer.json"
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        id = vocabulary.pop(one)
        vocabulary |= {one: vocabulary[other], other: id} if other in vocabulary else {other: id}
        path.write_text(json.dumps(content))
    with pytest.raises(ChatFormatError, match=message):
        making.tokenizer(jobs.model(settings, "tokenizer"), layout)
    assert not layout.tokenizer.exists()


def test_a_folder_without_safetensors_or_tokenizer_is_refused(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    assert settings.models.hub is not None
    policy = Path(str(settings.models.hub.policy.path))
    (policy / "model.safetensors").rename(policy / "pytorch_model.bin")
    with pytest.raises(
        SourceError, match=r"models\.hub\.policy: .* lacks config\.json or model\*\.safetensors; only safetensors"
    ):
        making.policy(jobs.model(settings, "policy", 0), layout)
    for path in policy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(SourceError, match=r"models\.hub\.policy: no readable tokenizer in"):
        making.tokenizer(jobs.model(settings, "tokenizer"), layout)


def shard(folder: Path, *, tied: bool) -> list[Path]:
    """Rewrite a mirror's model as several files and their index."""
    (folder / hub.WEIGHTS).unlink()
    replica_models.random_model(0, tied=tied).save_pretrained(folder, max_shard_size="3MB")
    files = sorted(folder.glob("model-*.safetensors"))
    assert len(files) > 1 and not (folder / hub.WEIGHTS).exists()
    return files


def test_weights_in_several_files_are_taken_as_they_are(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    assert settings.models.hub is not None
    for role, tied in (("policy", False), ("guard", True)):
        files = shard(Path(str(getattr(settings.models.hub, role).path)), tied=tied)
        getattr(making, role)(jobs.model(settings, role, 0), layout)
        assert {path.name for path in files} < {path.name for path in layout.model(role, 0).iterdir()}
        assert models.load_lm(layout.model(role, 0), settings.runtime)(torch.tensor([[882]])).logits.shape == (1, 1, 128_256)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def point(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", encoding="utf-8")


def drop_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, path, {"format": "pt"})


def turn_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].T.contiguous()
    save_file(tensors, path, {"format": "pt"})


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone"))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (cut, r"/model\.safetensors is not a whole safetensors file \(.+\): cut short, or a pointer of git-lfs"),
        (point, r"/model\.safetensors is not a whole safetensors file \(.+\): cut short, or a pointer of git-lfs"),
        (dangle, r"/model\.safetensors is not there, though a link names it"),
        (drop_a_tensor, r"lack 1 of the \d+ tensors, first model\.layers\.0\.mlp\.up_proj\.weight"),
        (turn_a_tensor, r"up_proj\.weight in .* is of shape \(16, 32\), its config\.json says \(32, 16\)"),
    ],
)
@pytest.mark.parametrize("role", ["policy", "guard"])
def test_weights_that_are_not_whole_are_refused_before_a_gpu_is_taken(
    run: tuple[Config, Layout],
    role: str,
    spoil: Callable[[Path], None],
    problem: str,
) -> None:
    settings, layout = run
    folder = Path(str(getattr(settings.models.hub, role).path))
    spoil(folder / hub.WEIGHTS)
    with pytest.raises(SourceError, match=rf"^models\.hub\.{role}: .*{problem}.*; fetch the mirror {folder} again$"):
        getattr(making, role)(jobs.model(settings, role, 0), layout)
    assert not layout.model(role, 0).exists()


def test_parts_of_the_weights_are_counted(run: tuple[Config, Layout]) -> None:
    settings, layout = run
    assert settings.models.hub is not None
    folder = Path(str(settings.models.hub.policy.path))
    part = shard(folder, tied=False)[-1]
    index = folder / hub.INDEX
    part.rename(folder / "elsewhere")
    with pytest.raises(SourceError, match=rf"^models\.hub\.policy: {part} is not there, though {hub.INDEX} names it; fetch"):
        making.policy(jobs.model(settings, "policy", 0), layout)
    for content in ("{", "{}", "[]", '{"weight_map": []}'):
        index.write_text(content)
        with pytest.raises(SourceError, match=rf"{index} is not an index of weights; fetch"):
            making.policy(jobs.model(settings, "policy", 0), layout)
    index.unlink()
    with pytest.raises(SourceError, match=rf"{folder} has neither model\.safetensors nor {hub.INDEX}"):
        making.policy(jobs.model(settings, "policy", 0), layout)


def test_a_snapshot_of_the_hub_that_is_not_whole_is_fetched_again(
    run: tuple[Config, Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, layout = run
    assert settings.models.hub is not None
    folder, commit = Path(str(settings.models.hub.policy.path)), "0" * 40
    cut(folder / hub.WEIGHTS)
    pinned = config.as_dict(settings)
    pinned["models"]["hub"]["policy"] = {"id": "someone/policy", "revision": commit}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(SourceError, match=rf"run `hf download someone/policy --revision {commit} --force-download` to fetch it"):
        making.policy(jobs.model(config.parse(pinned, "test"), "policy", 0), layout)
