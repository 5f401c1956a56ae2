"""Children of a test run: started in their own session, and never left behind."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

import psutil

_PR_SET_PDEATHSIG = 1
_UNPRIVILEGED = "nobody"


class Identity(TypedDict, total=False):
    """Who a child runs as: the keywords that subprocess takes."""

    user: int
    group: int
    extra_groups: list[int]


def folder_of(package: str) -> Path:
    """Where a package that brings programs is installed; it is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: run `make setup`"
    assert spec.origin is not None
    return Path(spec.origin).parent


def unprivileged() -> Identity:
    """Another user when we are root (PostgreSQL refuses root), else ourselves."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(_UNPRIVILEGED)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def spawn(
    command: Sequence[str | Path], log: Path, *, end_with: signal.Signals, identity: Identity
) -> subprocess.Popen[bytes]:
    """Start a server whose output goes to `log`; it gets the signal when we die, however we do."""
    libc = ctypes.CDLL(None)

    def tie_to_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, end_with)

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,  # Ctrl-C is for pytest; its fixtures stop the servers in order
            preexec_fn=tie_to_parent,  # noqa: PLW1509 - one call, no lock taken, no memory made
            **identity,
        )


def kill_family(pid: int) -> None:
    """Kill a process and all below it at one moment: none acts on the others' end."""
    first = psutil.Process(pid)
    family = [first, *first.children(recursive=True)]
    for sent in (signal.SIGSTOP, signal.SIGKILL):
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sent)
    psutil.wait_procs(family, timeout=10)


def stop(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    """End a child that spawn started, by force after 10 s."""
    process.send_signal(with_signal)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
