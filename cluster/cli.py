"""The entry point of the `crm` command, which is in cluster/app.py."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run a command. A Ctrl-C while the imports still run ends the process without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cluster.app import prepare, run

    prepare()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
