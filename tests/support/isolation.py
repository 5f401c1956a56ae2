"""What unit and property tests must not do: start Ray, open sockets."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest


def forbid_ray_and_sockets(patch: pytest.MonkeyPatch) -> None:
    """Make ray.init (auto-init too) and sockets fail for the length of a test."""
    for name in ("connect", "connect_ex", "bind"):
        patch.setattr(socket.socket, name, _refused(f"socket.{name}"))
    # not imported here, which would cost every run 800 ms; no_new_ray sees the rest
    if ray := sys.modules.get("ray"):
        patch.setattr(ray, "init", _refused("ray.init"))


@contextmanager
def no_new_ray() -> Iterator[None]:
    """End, and refuse, a Ray that a test imported and started after the guard was set."""
    before = _ray_is_up()
    yield
    if _ray_is_up() and not before:
        sys.modules["ray"].shutdown()
        _refused("ray.init")()


def _ray_is_up() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _refused(what: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError(f"{what} in a unit or property test: it belongs to tests/integration")

    return refuse
