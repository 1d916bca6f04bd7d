from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import yaml
from typer.testing import CliRunner

from saffron import cli
from saffron import config as configs
from saffron.config import Config, HubFile
from saffron.hub import SourceError, current_pins, fetch, files, require_pins

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_not_a_real_token"


INVALID = "Invalid credentials in Authorization header"

#: Status, X-Error-Code and X-Error-Message by a part of the repository's name.
ANSWERS = {
    "gated": (403, "GatedRepo", None),
    "locked": (401, "GatedRepo", "Access to this model is restricted"),
    "absent": (404, "RepoNotFound", None),
    "hidden": (401, "RepoNotFound", "Invalid username or password."),
    "expired": (401, None, INVALID),
    "lapsed": (401, "GatedRepo", INVALID),
    "narrow": (403, None, "enable access to public gated repositories in your fine-grained token settings"),
    "crowded": (429, None, None),
    "moved": (404, "RevisionNotFound", None),
    "broken": (500, None, None),
}


class Hub(BaseHTTPRequestHandler):
    """A hub that answers every request about a repository with the error its name asks for."""

    def do_GET(self) -> None:
        name = next((name for name in ANSWERS if name in self.path), "broken")
        status, code, reason = ANSWERS[name]
        if name == "moved" and "/tree/" not in self.path and "/revision/" not in self.path:
            body = b'{"id": "someone/moved", "sha": "%s", "siblings": []}' % COMMIT.encode()
            status, code = 200, None
        else:
            body = b"{}"
        self.send_response(status)
        for header, value in (("X-Error-Code", code), ("X-Error-Message", reason)):
            if value is not None:
                self.send_header(header, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that must not be seen, and no waiting between the client's own retries."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


NOT_VALID = r"HF_TOKEN \(or what `hf auth login` stored\) is not valid: make a new one at https://huggingface\.co/settings/tokens"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("locked", r"access to someone/locked is gated: ask for it at"),
        ("hidden", r"the hub shows no dataset someone/hidden: correct sources\.hub\.x\.id, or set .* HF_TOKEN"),
        ("expired", rf"the hub refuses the token it was shown for someone/expired; {NOT_VALID}$"),
        ("lapsed", rf"the hub refuses the token it was shown for someone/lapsed; {NOT_VALID}$"),
        ("narrow", r"HF_TOKEN gives no access to someone/narrow: let it read public gated repositories at https://.*/tokens"),
        ("crowded", r"the hub limits the rate of requests and refused someone/crowded: wait some minutes"),
        ("gated", r"access to .* is gated: ask for it at https://huggingface\.co/datasets/someone/gated, then set .* HF_TOKEN"),
        ("absent", r"the hub shows no dataset someone/absent: correct sources\.hub\.x\.id, or set .* HF_TOKEN"),
        ("moved", rf"someone/moved has no commit {COMMIT}: copy one from .*/commits/main into sources\.hub\.x\.revision"),
        ("broken", r"someone/broken is not in the local cache .*: connect to the network, or set sources\.hub\.x\.path"),
    ],
)
def test_each_refusal_of_the_hub_has_its_own_remedy(hub: str, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=f"^sources\\.hub\\.x: {message}") as caught:
        fetch(HubFile(id=f"someone/{name}", revision=COMMIT), "sources.hub.x", "dataset", ["*"], endpoint=hub)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/some/blob"), "Permission denied"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
    ],
)
def test_a_cache_that_takes_no_files_is_no_problem_of_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError, reason: str
) -> None:
    def write(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.snapshot_download", write)
    with pytest.raises(SourceError) as caught:
        fetch(HubFile(id="someone/model", revision=COMMIT), "models.hub.guard", "model", ["*"])
    assert str(caught.value).startswith(
        f"models.hub.guard: someone/model cannot be kept in the hub's cache {tmp_path} ({reason}): free space or make the folder "
        "writable, or set the environment variable HF_HOME"
    )


def test_without_network_the_error_offers_a_mirror() -> None:
    with pytest.raises(
        SourceError, match=r"did not answer .*: connect to the network, or set models\.hub\.guard\.path to a local mirror"
    ):
        fetch(HubFile(id="someone/model", revision=COMMIT), "models.hub.guard", "model", ["*"], endpoint="http://127.0.0.1:9")


def test_an_unpinned_id_is_refused_without_a_look_at_the_hub() -> None:
    with pytest.raises(SourceError, match=r"sources\.hub\.x\.revision: someone/x is not pinned .*copy one from .*/commits/main"):
        fetch(HubFile(id="someone/x"), "sources.hub.x", "dataset", ["*"], endpoint="http://127.0.0.1:9")


def config_of(**changes: dict[str, object]) -> Config:
    """The paper's config with other values for some hub ids, by the last part of their key."""
    values = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    for section in (values["sources"], values["sources"]["prompts"], values["models"]["hub"]):
        for name in section.keys() & changes.keys():
            section[name] = {**section[name], **changes[name]}
    return configs.parse(values, "test")


def test_a_config_without_a_commit_is_refused_with_every_key_and_the_command_that_helps() -> None:
    unpinned = config_of(harmful_hexphi={"sha256": {}}, guard={"revision": None})
    with pytest.raises(SourceError) as caught:
        require_pins(unpinned, "config/mine.yaml")
    message = str(caught.value)
    assert message.startswith("config/mine.yaml: 2 hub id(s) without a commit:")
    assert "sources.prompts.harmful_hexphi.revision: Unispac/" in message and "models.hub.guard.revision: meta-llama/" in message
    assert "conversations" not in message
    assert "saffron pin --config config/mine.yaml" in message
    require_pins(config_of(harmful_hexphi={"sha256": {}, "path": "mirror"}), "x")
    require_pins(config_of(harmful_hexphi={"sha256": {}, "revision": COMMIT}), "x")
    require_pins(configs.load(ROOT / "config/sandbox.yaml"), "x")


def test_a_judge_needs_a_commit_as_every_model_does(api: dict[str, str | Exception | None]) -> None:
    values = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    checkpoint = {"id": "someone/judge", "revision": None}
    values["judges"].append({"name": "other", "kind": "other_guard", "settings": {"checkpoint": checkpoint}})
    with pytest.raises(
        SourceError, match=r"judges\.other\.settings\.checkpoint\.revision: someone/judge is not pinned to a commit"
    ):
        require_pins(configs.parse(values, "test"), "x")
    api["model:someone/judge"] = COMMIT
    line = current_pins(configs.parse(values, "test")).splitlines()[-1]
    assert line == f"judges.other.settings.checkpoint.revision: {COMMIT}  # someone/judge, now null"


class Api:
    """The hub's answers by repository: a commit, or what it raises."""

    answers: ClassVar[dict[str, str | Exception | None]] = {}

    def __init__(self, endpoint: str | None) -> None:
        self.endpoint = endpoint

    def repo_info(self, id: str, *, repo_type: str, timeout: float) -> SimpleNamespace:
        answer = self.answers[f"{repo_type}:{id}"]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(sha=answer)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | Exception | None]:
    """Answers of a hub on which every id of the paper's config is where it is pinned, and the unpinned one at COMMIT."""
    answers = {f"{kind}:{file.id}": file.revision or COMMIT for _, kind, file in files(config_of())}
    monkeypatch.setattr(Api, "answers", answers)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    return Api.answers


def test_the_current_commits_are_printed_beside_what_the_config_has(api: dict[str, str | Exception | None]) -> None:
    api["model:meta-llama/Llama-Guard-3-1B"] = "f" * 40
    before = (ROOT / "config/paper.yaml").read_bytes()
    result = CliRunner().invoke(cli.app, ["pin", "--config", str(ROOT / "config/paper.yaml")])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == 5
    guard = config_of().models.hub.guard.revision  # type: ignore[union-attr]
    assert (
        lines[1]
        == f"sources.prompts.harmful_hexphi.revision: {COMMIT}  # Unispac/shallow-vs-deep-safety-alignment-dataset, now null"
    )
    assert lines[4] == f"models.hub.guard.revision: {'f' * 40}  # meta-llama/Llama-Guard-3-1B, now {guard}"
    assert all(line.endswith(", as pinned") for line in (lines[0], lines[2], lines[3]))
    assert TOKEN not in result.output
    assert (ROOT / "config/paper.yaml").read_bytes() == before
    assert current_pins(configs.load(ROOT / "config/sandbox.yaml")) == "this config reads nothing from the hub"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            OSError("no route"),
            r"models\.hub\.policy: the hub did not say .* \(OSError\): connect to the network, or read it at https",
        ),
        (None, r"models\.hub\.policy: the hub names no commit of meta-llama/.*: look for one at https://.*/commits/main"),
    ],
)
def test_a_hub_that_does_not_answer_leaves_one_message(
    api: dict[str, str | Exception | None], answer: Exception | None, message: str
) -> None:
    api["model:meta-llama/Meta-Llama-3-8B-Instruct"] = answer
    with pytest.raises(SourceError, match=message):
        current_pins(config_of())


@pytest.mark.parametrize(("name", "message"), [("expired", NOT_VALID), ("crowded", "wait some minutes"), ("gated", "is gated")])
def test_pinning_says_why_the_hub_refused(hub: str, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=rf"^sources\.conversations: .*{message}") as caught:
        current_pins(config_of(conversations={"id": f"someone/{name}"}), endpoint=hub)
    assert TOKEN not in str(caught.value)


def test_an_id_the_hub_does_not_know_is_named(hub: str) -> None:
    with pytest.raises(SourceError, match=r"sources\.conversations: the hub shows no dataset someone/absent: correct sources"):
        current_pins(config_of(conversations={"id": "someone/absent"}), endpoint=hub)


@pytest.mark.parametrize("name", ["paper", "paper-1b"])
def test_every_shipped_id_is_pinned_by_a_commit_or_by_its_content(name: str) -> None:
    config = configs.load(ROOT / "config" / f"{name}.yaml")
    require_pins(config, "x")
    by_content = [file for _, _, file in files(config) if file.revision is None]
    assert [file.id for file in by_content] == ["Unispac/shallow-vs-deep-safety-alignment-dataset"]
    assert set(by_content[0].sha256) == {"data/safety_bench/Harmful-HEx-PHI.jsonl"}  # type: ignore[attr-defined]
    assert len({file.revision for _, _, file in files(config) if file.revision}) == 4


def test_a_mirror_takes_the_hubs_place(tmp_path: Path) -> None:
    assert fetch(HubFile(id="someone/gated", path=str(tmp_path)), "x", "model", ["*"], endpoint="http://127.0.0.1:9") == tmp_path
    with pytest.raises(
        SourceError, match=r"models\.hub\.policy\.path: no folder .*/absent; put the mirror of someone/gated there"
    ):
        fetch(HubFile(id="someone/gated", path=str(tmp_path / "absent")), "models.hub.policy", "model", ["*"])
