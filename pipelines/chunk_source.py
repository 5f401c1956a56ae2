"""Chunks of rows as a source of Ray Data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from pipelines.chunks import Plan

if TYPE_CHECKING:
    from ray.data import DataContext


class ChunkSource(Datasource):
    """Yields tables with one column, `chunk`: each value is a packed `Chunk`."""

    def __init__(self, planned: Plan) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray has no types
        self._plan = planned

    @property
    def supports_distributed_reads(self) -> bool:
        """Whether any node may read: no, the files are where the import was started."""
        return False

    def estimate_inmemory_data_size(self) -> int | None:
        """Return nothing: it is not known, and blocks are small anyway."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002  # Ray Data's signature
        per_task_row_limit: int | None = None,  # noqa: ARG002 - likewise
        data_context: DataContext | None = None,  # noqa: ARG002 - likewise
    ) -> list[ReadTask]:
        """Return a task for each part that can be read by itself."""
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        return [
            ReadTask(partial(_tables, self._plan, part), metadata) for part in self._plan.parts()
        ]


def _tables(planned: Plan, part: Sequence[int]) -> Iterator[pa.Table]:
    encoder = msgspec.msgpack.Encoder()
    for chunk in planned.chunks(part):
        yield pa.table({"chunk": pa.array([encoder.encode(chunk)], pa.binary())})
