"""What a run prints, from made-up events of Snakemake."""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from snakemake_logger_plugin_saffron import LogHandler, remedy, time_left

LOGS = "data/x/logs"


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def handler(stream: StringIO, **settings: Any) -> LogHandler:
    """One that prints into a stream."""
    made = LogHandler(OutputSettings(**settings), None)
    made.stream = stream
    return made


def send(to: LogHandler, event: LogEvent | None, message: str | None = None, level: int = logging.INFO, **values: Any) -> None:
    """An event as Snakemake sends it."""
    record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    record.__dict__.update(values, event=event)
    to.handle(record)


def start(to: LogHandler, number: int, stage: str, name: str, rule: str = "some_rule") -> None:
    """A job starts."""
    send(to, LogEvent.JOB_INFO, jobid=number, rule_name=rule, log=[f"{LOGS}/{stage}/{name}.log"], input=["data/a.parquet"])


def end(to: LogHandler, number: int, done: int, total: int) -> None:
    """A job ends."""
    send(to, LogEvent.JOB_FINISHED, f"Finished jobid: {number}", job_id=number)
    send(to, LogEvent.PROGRESS, None, done=done, total=total)


def a_run(to: LogHandler) -> None:
    """Three jobs of two stages."""
    send(to, None, "Building DAG of jobs...")
    send(to, LogEvent.RUN_INFO, "Job stats:\n...", stats={"some_rule": 3, "total": 3})
    start(to, 1, "models", "policy.seed0")
    end(to, 1, 1, 3)
    for number in (2, 3):
        start(to, number, "search", f"part{number}")
    end(to, 2, 2, 3)
    end(to, 3, 3, 3)
    send(to, None, "Complete log(s): run.log")
    to.close()


def test_snakemake_finds_it() -> None:
    assert LoggerPluginRegistry().is_installed("saffron")


def test_a_file_gets_a_line_for_each_stage_and_job() -> None:
    stream = StringIO()
    a_run(handler(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "jobs to run: 3" and lines[-1] == "Complete log(s): run.log"
    assert [line.split()[1] for line in lines[1:-1] if line[0].isdigit()] == ["models", "search"]
    jobs = [line.split(", ")[:2] for line in lines if line.startswith("  ")]
    assert jobs == [["  1 of 3", "models: policy.seed0"], ["  2 of 3", "search: part2"], ["  3 of 3", "search: part3"]]
    assert "data/a.parquet" not in stream.getvalue() and "Building DAG" not in stream.getvalue()


def test_a_target_that_only_gathers_files_is_no_stage() -> None:
    stream = StringIO()
    made = handler(stream)
    send(made, LogEvent.JOB_INFO, jobid=0, rule_name="all", log=[], input=["data/a.parquet"])
    end(made, 0, 1, 1)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    made = handler(stream)
    a_run(made)
    assert "models" in stream.getvalue() and "of 3 jobs" in stream.getvalue() and "left" in stream.getvalue()
    assert "models: policy.seed0" not in stream.getvalue() and made.bar is None


def failed(tmp_path: Path, text: str, **settings: Any) -> str:
    """What is printed of a failed job with this log."""
    log, notebook = tmp_path / "figures/figure2.log", tmp_path / "figures/figure2.ipynb"
    log.parent.mkdir()
    log.write_text(text)
    notebook.write_text("{}")
    stream = StringIO()
    made = handler(stream, **settings)
    logs = [str(log), str(notebook), str(tmp_path / "never.log")]
    send(made, LogEvent.JOB_INFO, jobid=7, rule_name="draw_figure2", log=logs)
    send(made, LogEvent.JOB_ERROR, None, logging.ERROR, jobid=7, rule_name="draw_figure2", log=logs)
    send(made, LogEvent.ERROR, "a command's frames", logging.ERROR, exception="CalledProcessError")
    return stream.getvalue()


def test_a_failed_job_shows_the_end_of_its_log_and_one_remedy(tmp_path: Path) -> None:
    lines = failed(
        tmp_path, "\n".join(f"line {i}" for i in range(100)) + "\nsaffron: wrong; do this\n", show_failed_logs=True
    ).splitlines()
    assert lines[1] == "FAILED figures: figure2"
    assert [line.rpartition("/")[2] for line in lines if line.startswith("  log: ")] == ["figure2.log", "figure2.ipynb"]
    shown = [line for line in lines if line.startswith("  | ")]
    assert shown[-1] == "  | saffron: wrong; do this" and len(shown) == 12
    assert [line for line in lines if "remedy" in line] == lines[-1:] and "what the last line of the log says" in lines[-1]


def test_logs_are_named_alone_where_the_profile_says_so(tmp_path: Path) -> None:
    shown = failed(tmp_path, "a secret of the log")
    assert "a secret" not in shown and "figure2.log" in shown and "remedy" in shown


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("saffron: data/x: wrong; do this", "the last line"),
        ("torch.OutOfMemoryError: CUDA out of memory", "memory"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Traceback (most recent call last):\nValueError: x", "what the log shows"),
        ("10:00:00 INFO searching", "killed"),
        ("", "killed"),
    ],
)
def test_a_remedy_fits_the_log(log: str, words: str) -> None:
    assert words in remedy(log) and "\n" not in remedy(log)


def _warned(to: LogHandler) -> None:
    send(to, None, "careful", logging.WARNING)


def _refused(to: LogHandler) -> None:
    send(to, LogEvent.ERROR, "MissingInputException", logging.ERROR, exception="MissingInputException")


def _nothing(to: LogHandler) -> None:
    send(to, None, "Nothing to be done (all requested files are present and up to date).")


@pytest.mark.parametrize(("say", "words"), [(_warned, "careful"), (_refused, "MissingInput"), (_nothing, "Nothing to be done")])
def test_what_is_no_event_of_a_job_is_not_lost(say: Callable[[LogHandler], None], words: str) -> None:
    stream = StringIO()
    say(handler(stream))
    assert words in stream.getvalue()


def test_a_dry_run_prints_what_snakemake_prints() -> None:
    stream = StringIO()
    made = handler(stream, dryrun=True)
    made.setFormatter(logging.Formatter("as ever: %(message)s"))
    send(made, LogEvent.RUN_INFO, "job count", stats={"total": 1})
    assert stream.getvalue() == "as ever: job count\n"


@given(st.floats(0, 1e6), st.integers(0, 1000), st.integers(0, 1000))
def test_the_time_left_is_said_between_start_and_end_alone(elapsed: float, done: int, more: int) -> None:
    said = time_left(elapsed, done, done + more)
    assert bool(said) == (done > 0 and more > 0)
    if said:
        number, unit = said.split()[1:3]
        assert abs(float(number) * {"s": 1, "min": 60}[unit] - elapsed * more / done) <= {"s": 0.51, "min": 31}[unit]
