"""What a run of the workflow prints: its stages, a bar with the time left, and what went wrong.

Snakemake finds a logger by the name of its package; ``logger: saffron`` in the profiles chooses this one. Everything that is
left out here stands in Snakemake's complete log. A dry run, and one with ``--verbose``, is printed as Snakemake prints it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from logging import WARNING, LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

#: Lines of a failed job's log that are shown.
TAIL = 12
#: Beginnings of what Snakemake says beside its events and is shown.
SAID = ("Nothing to be done", "Congratulations", "Complete log", "Trying to restart", "Will exit after finishing")
#: Errors that Snakemake raises for a failed job, which has been shown with its log.
OF_A_JOB = ("CalledProcessError", "RuleException")

BAR = "{desc} {bar} {n_fmt} of {total_fmt} jobs, {elapsed} gone, about {remaining} left"
AGAIN = "then run the same command again: what is finished is kept"
#: What a failed job's log holds → what to do.
REMEDIES = (
    (r"MemoryError|[Oo]ut of memory|\bKilled\b", f"memory: run fewer jobs at once (CORES=1) or lower batch sizes, {AGAIN}"),
    (r"No space left on device", f"the disk is full: free some, {AGAIN}"),
    (r"\bsaffron: ", f"mend what the last line of the log says, {AGAIN}"),
)


def remedy(log: str) -> str:
    """One line on what to do about a failed job, from what its log holds."""
    known = next((words for pattern, words in REMEDIES if re.search(pattern, log)), None)
    if known is None and re.search(r"Traceback|[Ee]rror", log):
        return f"mend what the log shows, {AGAIN}"
    return known or f"the log shows no error: killed, perhaps for its memory; run fewer jobs at once (CORES=1), {AGAIN}"


def time_left(elapsed: float, done: int, total: int) -> str:
    """How long the rest takes if its jobs take as long as those before, in words; empty at the end and at the start.

    Args:
        elapsed: seconds so far.
        done: jobs so far.
        total: jobs in all.
    """
    if done in (0, total):
        return ""
    seconds = elapsed * (total - done) / done
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


@dataclass(frozen=True)
class Job:
    """A job that has started: its stage and name, by where its log lies, and when it started."""

    stage: str
    name: str
    start: float

    @classmethod
    def of(cls, log: str) -> Job:
        """A job that starts now, from its log, ``data/<config>/logs/<stage>/<job>.log``."""
        path = Path(log)
        return cls(path.parent.name, path.stem, time.monotonic())


class LogHandler(LogHandlerBase):
    """Prints Snakemake's events for a reader; Snakemake looks for this name."""

    def __post_init__(self) -> None:
        self.stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self.running: dict[int, Job] = {}
        self.ended: list[Job] = []
        self.stages: set[str] = set()
        self.start = time.monotonic()
        self.bar: tqdm[None] | None = None

    @property
    def writes_to_stream(self) -> bool:
        """It takes the place of Snakemake's own printing."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake's complete log is left to it."""
        return False

    @property
    def has_filter(self) -> bool:
        """``--quiet`` holds as ever."""
        return False

    @property
    def has_formatter(self) -> bool:
        """Snakemake's own, for dry runs."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """Events are enough."""
        return False

    def emit(self, record: LogRecord) -> None:
        """Print what a record says, if a reader needs it."""
        try:
            if self.common_settings.dryrun or self.common_settings.verbose:
                self._say(self.format(record))
            else:
                self._event(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        super().close()

    def _event(self, record: LogRecord) -> None:
        event, values = getattr(record, "event", None), record.__dict__
        if event == LogEvent.RUN_INFO:
            self._begin(values["stats"]["total"])
        elif event == LogEvent.JOB_INFO and values["log"]:  # a target that only gathers files has no log
            self._started(values["jobid"], Job.of(values["log"][0]))
        elif event == LogEvent.JOB_FINISHED:
            self.ended += [job for job in [self.running.pop(values["job_id"], None)] if job is not None]
        elif event == LogEvent.PROGRESS:
            self._progress(values["done"], values["total"])
        elif event == LogEvent.JOB_ERROR:
            self._failed(self.running.pop(values["jobid"], None), values["rule_name"], values["log"])
        elif event == LogEvent.ERROR:
            if values.get("exception") not in OF_A_JOB:
                self._say(record.getMessage())
        elif event is None and (record.levelno >= WARNING or record.getMessage().startswith(SAID)):
            self._say(record.getMessage())

    def _begin(self, total: int) -> None:
        self.start = time.monotonic()
        self._say(f"jobs to run: {total}")
        if self.stream.isatty():
            self.bar = tqdm(total=total, file=self.stream, bar_format=BAR, smoothing=0, dynamic_ncols=True, leave=False)

    def _started(self, number: int, job: Job) -> None:
        self.running[number] = job
        if job.stage not in self.stages:
            self.stages.add(job.stage)
            self._say(f"{time.strftime('%H:%M:%S')} {job.stage}")
        self._describe()

    def _progress(self, done: int, total: int) -> None:
        if self.bar is not None:
            self.bar.total = total
            self.bar.update(done - self.bar.n)
            self._describe()
        else:  # where lines stay, as in a file
            now = time.monotonic()
            left = time_left(now - self.start, done, total)
            for job in self.ended:
                words = (f"{done} of {total}", f"{job.stage}: {job.name}", f"{now - job.start:.0f} s", left)
                self._say("  " + ", ".join(filter(None, words)))
        self.ended.clear()

    def _describe(self) -> None:
        if self.bar is not None:
            self.bar.set_description(", ".join(sorted({job.stage for job in self.running.values()})))

    def _failed(self, job: Job | None, rule: str, logs: Sequence[str]) -> None:
        found = [Path(path) for path in logs if Path(path).is_file()]
        text = "\n".join(path.read_text("utf-8", "replace").strip() for path in found if path.suffix != ".ipynb")
        lines = [f"FAILED {rule if job is None else f'{job.stage}: {job.name}'}", *(f"  log: {path}" for path in found)]
        if self.common_settings.show_failed_logs:
            lines += [f"  | {line}" for line in text.splitlines()[-TAIL:]]
        self._say("\n".join([*lines, f"  remedy: {remedy(text)}"]))

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        elif text and text != "None":
            print(text, file=self.stream, flush=True)
