"""Jobs of a workflow as forks of one process that has imported the libraries.

Importing torch and transformers takes five seconds of CPU time or more, longer than most jobs of the small worlds compute. So a
workflow that runs on the CPUs of one machine starts one such process, in which a job's libraries are imported when the
first job asks for them, and every job is a fork of it: the same code, arguments, folder, environment and streams as a
process of its own, without the wait. The command that Snakemake started stays until its fork ends, and ends as it does.

No job depends on it: where there is no such process (a GPU, a cluster, a stage started by hand, another system than Linux)
a command does its work itself. The process ends with its workflow, however that ends, and the forks end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import secrets
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Name of the socket, in the environment of a workflow's jobs.
VARIABLE = "SAFFRON_FORK_SERVER"

_DATA = ("saffron.cli", "saffron.runs.provenance", "saffron.runs.seals", "saffron.sources.stage")
_MODELS = (
    *_DATA,
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "saffron.models.making",
    "saffron.safety4m.build",
    "saffron.mrm.training",
    "saffron.mrm.evaluation",
    "saffron.search.runner",
)
_ANALYSIS = (*_DATA, "saffron.analysis.stage", "saffron.runs.report")
_DRAWING = ("saffron.figures.style", "saffron.figures.notebooks", "papermill", "IPython.core.interactiveshell", "seaborn")
_FIGURES = (*_ANALYSIS, *_DRAWING)
#: What is imported before a command's first job is forked, by the command's first word.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "models": _MODELS,
    "safety4m": _MODELS,
    "mrm": _MODELS,
    "search": _MODELS,
    "judge": _MODELS,
    "analysis": _ANALYSIS,
    "figures": _FIGURES,
}
_LENGTH = struct.Struct("!I")
_STREAMS = (0, 1, 2)
_TAKEN = b"y"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Request:
    """A command to run: the code that asks for it, its arguments, folder and environment."""

    code: str
    argv: list[str]
    folder: str
    environment: dict[str, str]


@dataclass(frozen=True)
class _Fork:
    """A running fork: its process, a descriptor that becomes readable when it ends, and who waits for that."""

    process: int
    ended: int
    client: socket.socket


def _code() -> str:
    """Which code a process runs: a job of another checkout, environment or interpreter is not forked."""
    return f"{Path(__file__).resolve().parent} {sys.prefix} {sys.version}"


def _address(name: str) -> str:
    return f"\0{name}"  # lies in no folder: nothing is left behind, however a workflow ends


# ------------------------------------------------------------------------------------------------- a command that asks
def ask(name: str) -> int | None:
    """Have this process's command run by a fork, wait until it ends, and return its exit status.

    If a signal ended the fork, the same ends this process.

    Args:
        name: of the socket.

    Returns:
        The exit status; None if there is no such process, or it could not or would not fork, so that nothing was done.
    """
    request = Request(_code(), sys.argv, os.getcwd(), dict(os.environ))
    payload = json.dumps(request.__dict__).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            server.connect(_address(name))
            socket.send_fds(server, [_LENGTH.pack(len(payload))], _STREAMS)
            server.sendall(payload)
            _exactly(server, len(_TAKEN))
        except OSError:
            return None
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what there is to say of an interruption the fork says
        try:
            (status,) = _LENGTH.unpack(_exactly(server, _LENGTH.size))
        except OSError:
            print("saffron: the workflow that this job belongs to has ended", file=sys.stderr)
            return 1
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        ConnectionError: if the other side ended before.
    """
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("the other side ended")
        received += part
    return received


# ---------------------------------------------------------------------------------------------- the process that forks
def start(environment: Mapping[str, str]) -> str | None:
    """Start the process that forks; it ends with this one.

    Args:
        environment: in which the libraries are imported.

    Returns:
        Name of its socket, for the jobs' environment (VARIABLE); None where there can be none.
    """
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        return None
    name = f"saffron-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            os.close(os.pidfd_open(os.getpid()))
            listener.bind(_address(name))
        except OSError:  # a kernel or a container that lacks one of them
            return None
        listener.listen(128)  # from here on jobs may ask: they wait
        alive, _held = os.pipe()  # closed when this process ends, in whatever way, and by nothing else
        subprocess.Popen(
            [sys.executable, "-m", "saffron.forkserver", str(listener.fileno())],
            stdin=alive,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            env=environment,
        )
        os.close(alive)
    return name


class Server:
    """Forks for every request that it is sent.

    Args:
        listener: where commands ask.
        workflow: a descriptor that becomes readable when the workflow has ended.
    """

    def __init__(self, listener: socket.socket, workflow: int) -> None:
        self.listener, self.workflow = listener, workflow
        self.running: dict[int, _Fork] = {}  # by the descriptor that tells their end
        self.selector = selectors.DefaultSelector()

    def serve(self) -> Request | None:
        """Fork until the workflow ends.

        Returns:
            In a fork, what it is to do; it has that command's streams, folder and environment. None when all is over.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted workflow may have something left to do
        self.selector.register(self.workflow, selectors.EVENT_READ)
        self.selector.register(self.listener, selectors.EVENT_READ)
        while True:
            # One at a time: what is done about it may close what the next one would be about.
            for source in [key.fd for key, _ in self.selector.select()][:1]:
                if source == self.workflow:
                    for fork in self.running.values():
                        os.kill(fork.process, signal.SIGKILL)
                    return None
                if source == self.listener.fileno():
                    request = self._accept()
                    if request is not None:
                        return request
                elif source in self.running:
                    self._ended(self.running.pop(source))
                else:  # it says nothing more, so it was killed; its fork's end is still to come
                    self.selector.unregister(source)
                    for fork in self.running.values():
                        if fork.client.fileno() == source:
                            os.kill(fork.process, signal.SIGKILL)

    def _accept(self) -> Request | None:
        """Fork for whoever asks; the request in the fork, None here."""
        client, _ = self.listener.accept()
        with contextlib.ExitStack() as stack:
            stack.callback(client.close)
            request, streams = _received(client)
            for stream in streams:
                stack.callback(os.close, stream)
            if request is None:
                return None
            for module in NEEDS.get(request.argv[1] if len(request.argv) > 1 else "", _DATA):
                with contextlib.suppress(Exception):  # the job itself says why it cannot be imported
                    importlib.import_module(module)
            gc.freeze()  # a collection in a fork would copy every page
            try:
                process = os.fork()
            except OSError:  # no process can be had, or no memory
                return None
            if process == 0:
                self.listener.close()
                for fork in self.running.values():
                    fork.client.close()
                    os.close(fork.ended)
                _become(request, streams)
                return request
            with contextlib.suppress(OSError):  # if it was killed meanwhile, that is seen next
                client.sendall(_TAKEN)
            fork = _Fork(process, os.pidfd_open(process), client.dup())
        self.running[fork.ended] = fork
        self.selector.register(fork.ended, selectors.EVENT_READ)
        self.selector.register(fork.client, selectors.EVENT_READ)
        return None

    def _ended(self, fork: _Fork) -> None:
        """Tell who waits for a fork how it ended."""
        _, status = os.waitpid(fork.process, 0)
        self.selector.unregister(fork.ended)
        os.close(fork.ended)
        with contextlib.suppress(KeyError):  # whoever waited has gone
            self.selector.unregister(fork.client)
        with contextlib.suppress(OSError):
            fork.client.sendall(_LENGTH.pack(status))
        fork.client.close()


def _received(client: socket.socket) -> tuple[Request | None, list[int]]:
    """A request and the three streams that came with it; None in its place if it is not one to fork for."""
    streams: list[int] = []
    try:
        client.settimeout(10)  # one that says nothing keeps nobody waiting
        _, user, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        first, streams, _, _ = socket.recv_fds(client, _LENGTH.size, len(_STREAMS))
        (size,) = _LENGTH.unpack(first + _exactly(client, _LENGTH.size - len(first)))
        request = Request(**json.loads(_exactly(client, size)))
        taken = user == os.getuid() and len(streams) == len(_STREAMS) and request.code == _code()
        client.settimeout(None)
    except (OSError, ValueError, TypeError):
        return None, streams
    return (request if taken else None), streams


def _become(request: Request, streams: list[int]) -> None:
    """Take on a command's streams, arguments, folder and environment."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no job goes on when nobody waits for it
    for number, stream in zip(_STREAMS, streams, strict=True):
        os.dup2(stream, number)
    # Python's own streams know what they were opened on: a pipe cannot be sought in where a file could.
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv[:] = request.argv


def main() -> None:
    """The process that forks, and in a fork the command."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    if Server(listener, sys.stdin.fileno()).serve() is not None:
        from saffron import cli

        cli.main()


if __name__ == "__main__":
    main()
