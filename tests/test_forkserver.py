"""Jobs as forks: the same work and end as a process of their own, and none that outlives who waits for it."""

from __future__ import annotations

import ast
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import typer

from saffron import cli, forkserver

#: A server whose forks run the Python text that they are given, in place of the command; before it, whatever a test changes.
SERVER = """
import os, socket, sys
{before}
from saffron.forkserver import Server
request = Server(socket.socket(fileno=int(sys.argv[1])), 0).serve()
if request is not None:
    exec(request.argv[2])
"""
#: A command that asks it.
CLIENT = """
import sys
from saffron import forkserver
status = forkserver.ask({name!r})
sys.exit(77 if status is None else status)
"""


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Forks:
    """A server and those who ask it."""

    def __init__(self, before: str = "") -> None:
        self.name = f"saffron-test-{os.getpid()}-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(f"\0{self.name}")
            listener.listen(8)
            command = [sys.executable, "-c", SERVER.format(before=before), str(listener.fileno())]
            self.server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])

    def ask(self, text: str, **options: object) -> subprocess.Popen[str]:
        """A process that has a fork run Python text."""
        command = [sys.executable, "-c", CLIENT.format(name=self.name), "run", text]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]

    def end(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(60)


@pytest.fixture
def possible() -> None:
    """Some Pythons (conda's) are built for kernels older than what a server needs; there every job imports for itself."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("this Python has no os.pidfd_open, so there is no server to test")


@pytest.fixture
def forks(possible: None, request: pytest.FixtureRequest) -> Iterator[Forks]:
    """A server; a parameter is what is changed in it beforehand."""
    made = Forks(getattr(request, "param", ""))
    yield made
    made.end()


def running(path: Path) -> psutil.Process:
    """The fork that wrote its number to a file, once it has."""
    wait(lambda: path.exists() and path.read_text(encoding="utf-8").endswith("\n"))
    return psutil.Process(int(path.read_text(encoding="utf-8")))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


SLEEPS = "import os, time; open({path!r}, 'w').write(str(os.getpid()) + '\\n'); time.sleep(600)"


def test_a_fork_has_its_commands_folder_environment_arguments_and_streams(forks: Forks, tmp_path: Path) -> None:
    text = "import os, sys; print(os.getcwd(), os.environ['MINE'], 'HOME' in os.environ, sys.argv[3])\n"
    text += "print(sys.stdin.read(), file=sys.stderr); sys.stdout.reconfigure(errors='replace')"
    command = [sys.executable, "-c", CLIENT.format(name=forks.name), "run", text, "ärger"]
    environment = {"MINE": "a b", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, input="read", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path} a b False ärger\n", "read\n")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('no')", 1),
        ("import os; os._exit(5)", 5),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
    ],
)
def test_a_command_ends_as_its_fork_does(forks: Forks, text: str, status: int) -> None:
    asked = forks.ask(text)
    _, errors = asked.communicate(timeout=60)
    assert asked.returncode == status
    assert ("ValueError: no" in errors) == ("ValueError" in text)
    assert forks.ask("sys.exit(4)").wait(60) == 4, "and the next has another"


def test_forks_run_side_by_side(forks: Forks, tmp_path: Path) -> None:
    first = forks.ask(SLEEPS.format(path=str(tmp_path / "first")))
    process = running(tmp_path / "first")
    assert forks.ask("pass").wait(60) == 0
    assert first.poll() is None and process.is_running()
    first.kill()
    first.communicate()


def test_the_fork_of_a_killed_command_is_killed(forks: Forks, tmp_path: Path) -> None:
    asked = forks.ask(SLEEPS.format(path=str(tmp_path / "number")))
    process = running(tmp_path / "number")
    asked.kill()
    asked.communicate()
    wait(lambda: gone(process))
    assert forks.ask("sys.exit(4)").wait(60) == 4


@pytest.mark.parametrize("how", ["the workflow ends", "the server is killed"])
def test_no_fork_outlives_the_server_and_its_command_fails(forks: Forks, tmp_path: Path, how: str) -> None:
    asked = forks.ask(SLEEPS.format(path=str(tmp_path / "number")))
    process = running(tmp_path / "number")
    forks.server.kill() if how == "the server is killed" else forks.end()
    _, errors = asked.communicate(timeout=60)
    assert (asked.returncode, errors) == (1, "saffron: the workflow that this job belongs to has ended\n")
    wait(lambda: gone(process))


def test_an_interruption_reaches_the_fork(forks: Forks, tmp_path: Path) -> None:
    text = "import signal, sys; signal.getsignal(signal.SIGINT) is signal.default_int_handler or sys.exit(9)\n"
    asked = forks.ask(text + SLEEPS.format(path=str(tmp_path / "number")))
    process = running(tmp_path / "number")
    process.send_signal(signal.SIGINT)
    _, errors = asked.communicate(timeout=60)
    assert asked.returncode in (-signal.SIGINT, 1) and "KeyboardInterrupt" in errors
    forks.server.send_signal(signal.SIGINT)
    assert forks.ask("sys.exit(4)").wait(60) == 4, "the server goes on: its workflow may have something left to do"


def test_without_a_server_or_with_one_of_other_code_nothing_is_forked(forks: Forks) -> None:
    assert forkserver.ask("saffron-nobody") is None
    other = CLIENT.format(name=forks.name).replace("status =", "forkserver._code = lambda: 'other'; status =")
    done = subprocess.run([sys.executable, "-c", other, "run", "pass"])
    assert done.returncode == 77
    assert forks.ask("sys.exit(4)").wait(60) == 4


def test_one_who_asks_for_nothing_keeps_nobody_waiting(forks: Forks) -> None:
    for said in (b"", b"\0\0", b"\0\0\0\3{}", b"\0\0\0\2{}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(f"\0{forks.name}")
            client.sendall(said)
    assert forks.ask("sys.exit(4)").wait(60) == 4


STARTED = """
import os, psutil
from saffron import forkserver
assert forkserver.start(dict(os.environ))
print(psutil.Process().children()[0].pid)
"""


@pytest.mark.parametrize(
    "forks",
    ["asks = os.getuid(); os.getuid = lambda: asks + 1", "def none(): raise BlockingIOError\nos.fork = none"],
    ids=["another user asks", "no process can be had"],
    indirect=True,
)
def test_what_cannot_be_forked_its_command_does_itself(forks: Forks) -> None:
    assert forks.ask("pass").wait(60) == 77
    assert forks.server.poll() is None
    assert forks.ask("pass").wait(60) == 77, "and the server is there for the next"


def test_a_fork_may_end_in_the_moment_in_which_its_command_is_killed(forks: Forks, tmp_path: Path) -> None:
    asked = forks.ask(SLEEPS.format(path=str(tmp_path / "number")))
    process = running(tmp_path / "number")
    forks.server.send_signal(signal.SIGSTOP)  # it sees both at once
    process.kill()
    wait(lambda: gone(process))
    asked.kill()
    asked.communicate()
    forks.server.send_signal(signal.SIGCONT)
    assert forks.ask("sys.exit(4)").wait(60) == 4


def test_without_what_linux_gives_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    assert forkserver.start({}) is None


STARTED = """
import os, psutil
from saffron import forkserver
assert forkserver.start(dict(os.environ))
print(psutil.Process().children()[0].pid)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_nothing_is_forked_for_another_user(forks: Forks) -> None:
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os._exit(0 if forkserver.ask(forks.name) is None else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert forks.ask("sys.exit(4)").wait(60) == 4


@pytest.mark.usefixtures("possible")
def test_the_process_ends_with_the_one_that_started_it() -> None:
    done = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, check=True)
    number = int(done.stdout)
    wait(lambda: not psutil.pid_exists(number) or gone(psutil.Process(number)))


ASKED = """
import os, subprocess, sys
from saffron import forkserver
os.environ[forkserver.VARIABLE] = forkserver.start(dict(os.environ))
command = [sys.executable, "-X", "importtime", "-m", "saffron", "validate", "--config", "config/smoke.yaml"]
sys.exit(subprocess.run(command).returncode)
"""


@pytest.mark.usefixtures("possible")
def test_the_command_is_run_by_a_fork_where_there_is_a_server() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "saffron.forkserver\n" in done.stderr and "pydantic\n" not in done.stderr, "the command imports next to nothing itself"
    assert "config/smoke.yaml" in done.stdout


def test_what_is_imported_beforehand_exists_and_is_of_commands_that_exist() -> None:
    words = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert forkserver.NEEDS.keys() <= words
    missing = {name for names in forkserver.NEEDS.values() for name in names if importlib.util.find_spec(name) is None}
    assert missing == set()


@pytest.mark.parametrize("word", sorted(forkserver.NEEDS))
def test_what_is_imported_beforehand_starts_no_thread(word: str) -> None:
    """A fork has none of its parent's threads, and whatever locks they held."""
    text = (
        "import importlib, sys; from saffron import forkserver\n"
        "for name in forkserver.NEEDS[sys.argv[1]]: importlib.import_module(name)\n"
        "from pathlib import Path; print([(path / 'comm').read_text().strip() for path in Path('/proc/self/task').iterdir()])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", text, word], capture_output=True, text=True, env=environment, check=True)
    threads = ast.literal_eval(done.stdout)[1:]
    assert set(threads) <= {"jemalloc_bg_thd"}, "of pyarrow's allocator, which starts it again in a fork"
