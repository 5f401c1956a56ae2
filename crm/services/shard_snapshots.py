"""A snapshot: all that one virtual shard knows at one seq, as one compressed file."""

from __future__ import annotations

from hashlib import blake2b

import msgspec
import zstandard

from crm.domain.feature_table import TableSlice
from crm.domain.features import DAYS_OF_WINDOW, HIDDEN_DAYS, MEASURES, MOMENTS

# A snapshot of another list of features is not ours to read: the log is replayed in its place.
_LIST = blake2b(
    repr((MEASURES, MOMENTS, DAYS_OF_WINDOW, HIDDEN_DAYS)).encode(), digest_size=8
).digest()
_MAGIC = b"crmshard2" + _LIST


class ShardSnapshot(msgspec.Struct, array_like=True):
    """Features of `shard` with every event up to `seq`, by a clock that stood at `now_us`."""

    shard: int
    seq: int
    now_us: int
    brands: dict[str, TableSlice]

    def encode(self) -> bytes:
        """Return the file's bytes."""
        compressor = zstandard.ZstdCompressor(write_checksum=True)  # a flipped bit must show
        return _MAGIC + compressor.compress(msgspec.msgpack.encode(self))

    @classmethod
    def decode(cls, data: bytes) -> ShardSnapshot:
        """Read a file's bytes; raises ValueError if they are none of ours or damaged."""
        if not data.startswith(_MAGIC):
            message = "no snapshot of these features"
            raise ValueError(message)
        try:
            return msgspec.msgpack.decode(zstandard.decompress(data[len(_MAGIC) :]), type=cls)
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            message = "a damaged snapshot"
            raise ValueError(message) from error
