"""Processes of ours: told apart by pid and start time, ended without a look at names."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Recorded:
    """A process as it was seen: a pid alone could meanwhile belong to somebody else."""

    pid: int
    started: float

    def find(self) -> psutil.Process | None:
        """Return the process if it still runs."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


TimedOut = psutil.TimeoutExpired


def recorded(process: psutil.Process) -> Recorded:
    """Note a process that runs."""
    return Recorded(process.pid, process.create_time())


def descendants() -> list[Recorded]:
    """Note every process below this one, however deep."""
    notes = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            notes.append(recorded(process))
    return notes


def end(processes: Iterable[Recorded], grace_s: float) -> int:
    """Ask these and all below them to end, kill what stays after `grace_s`; return how many ran."""
    found: dict[int, psutil.Process] = {}
    for process in (note.find() for note in processes):
        if process is None:
            continue
        found[process.pid] = process
        with suppress(psutil.Error):
            found.update((child.pid, child) for child in process.children(recursive=True))
    _signal(found.values(), signal.SIGTERM)
    _, alive = psutil.wait_procs(list(found.values()), timeout=grace_s)
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=2)
    return len(found)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent dies, so that none is out of sight."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(sent: signal.Signals) -> Callable[[], None]:
    """Return what a child runs first so that the kernel sends it `sent` when its parent is gone."""

    def arrange() -> None:
        _prctl(_PR_SET_PDEATHSIG, sent)

    return arrange


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _signal(processes: Iterable[psutil.Process], sent: signal.Signals) -> None:
    for process in processes:
        if process.pid != os.getpid():
            with suppress(psutil.Error):
                process.send_signal(sent)


_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: a forked child must not load anything
