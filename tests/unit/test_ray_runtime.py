"""What Ray would write to a command's terminal goes to the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from ray._private import worker
from ray.serve._private.logging_utils import configure_default_serve_logger

from cluster import ray_runtime


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray as a command has it."""
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    serve = logging.getLogger("ray.serve")
    monkeypatch.setattr(serve, "filters", [])
    monkeypatch.setattr(serve, "handlers", [])
    ray_runtime.quieten()
    ray_runtime.quieten()
    yield
    serve.setLevel(logging.NOTSET)
    serve.propagate = True


def test_a_nodes_warning_is_in_the_log_and_not_on_stdout(
    quiet: None, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    warning = {"lines": ["WARNING: 8 workers"], "pid": "raylet", "is_err": False}
    worker.print_to_stdstream(warning, ignore_prefix=False)
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["ray_warned: WARNING: 8 workers"]


def test_what_serve_tells_is_in_the_log_and_not_on_stderr(
    quiet: None, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configure_default_serve_logger()  # type: ignore[no-untyped-call]  # as its import does
    logging.getLogger("ray.serve").info("Application 'api' is ready")
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["Application 'api' is ready"]
