"""The service goes on without a part that does not start again yet."""

from __future__ import annotations

import pytest

from cluster import service
from cluster.errors import ServiceError
from cluster.processes import Recorded


class Part:
    """An embedded server that finds no room to start in."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.address = "socket"
        self.starts = 0

    def start(self) -> None:
        """Fail."""
        self.starts += 1
        raise self._error

    def stop(self) -> None:
        """Nothing runs."""

    def running(self) -> bool:
        """It does not."""
        return False

    def processes(self) -> list[Recorded]:
        """There are none."""
        return []


@pytest.mark.parametrize("error", [ServiceError("it ended at its start"), OSError(28, "full")])
def test_a_part_that_cannot_start_is_tried_again_later(error: Exception) -> None:
    part = Part(error)
    service._start_again(part)
    service._start_again(part)
    assert part.starts == 2
