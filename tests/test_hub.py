from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from saffron.config import HubFile
from saffron.hub import SourceError, fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_not_a_real_token"


ANSWERS = {
    "gated": (403, "GatedRepo"),
    "absent": (404, "RepoNotFound"),
    "moved": (404, "RevisionNotFound"),
    "broken": (500, None),
}


class Hub(BaseHTTPRequestHandler):
    """A hub that answers every request about a repository with the error its name asks for."""

    def do_GET(self) -> None:
        name = next((name for name in ANSWERS if name in self.path), "broken")
        status, code = ANSWERS[name]
        if name == "moved" and "/tree/" not in self.path and "/revision/" not in self.path:
            body = b'{"id": "someone/moved", "sha": "%s", "siblings": []}' % COMMIT.encode()
            status, code = 200, None
        else:
            body = b"{}"
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
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


def test_without_network_the_error_offers_a_mirror() -> None:
    with pytest.raises(
        SourceError, match=r"did not answer .*: connect to the network, or set models\.hub\.guard\.path to a local mirror"
    ):
        fetch(HubFile(id="someone/model", revision=COMMIT), "models.hub.guard", "model", ["*"], endpoint="http://127.0.0.1:9")


def test_an_unpinned_id_is_refused_and_the_current_commit_named(hub: str) -> None:
    with pytest.raises(
        SourceError, match=rf"sources\.hub\.x\.revision: someone/moved is not pinned .*its current one is {COMMIT}"
    ):
        fetch(HubFile(id="someone/moved"), "sources.hub.x", "dataset", ["*"], endpoint=hub)
    with pytest.raises(SourceError, match=r"someone/broken is not pinned to a commit; copy one from .*/commits/main"):
        fetch(HubFile(id="someone/broken"), "sources.hub.x", "dataset", ["*"], endpoint=hub)


def test_a_mirror_takes_the_hubs_place(tmp_path: Path) -> None:
    assert fetch(HubFile(id="someone/gated", path=str(tmp_path)), "x", "model", ["*"], endpoint="http://127.0.0.1:9") == tmp_path
    with pytest.raises(
        SourceError, match=r"models\.hub\.policy\.path: no folder .*/absent; put the mirror of someone/gated there"
    ):
        fetch(HubFile(id="someone/gated", path=str(tmp_path / "absent")), "models.hub.policy", "model", ["*"])
