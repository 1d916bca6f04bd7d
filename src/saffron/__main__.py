"""The ``saffron`` command: a fork's work where a workflow keeps a process to fork from, else this one's."""

from __future__ import annotations

import os
import sys

from saffron import forkserver


def main() -> None:
    """Run the command."""
    server = os.environ.get(forkserver.VARIABLE)
    status = forkserver.ask(server) if server else None
    if status is not None:
        sys.exit(status)
    from saffron.runs import started

    started.descriptions()  # before what reads them when it is imported
    from saffron import cli

    cli.main()


if __name__ == "__main__":
    main()
