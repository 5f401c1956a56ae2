"""A snapshot: all that one virtual shard knows at one seq, as one compressed file."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import msgspec
import zstandard

from crm.domain.brands import Brand
from crm.domain.feature_list import features_of
from crm.domain.feature_table import TableSlice
from crm.domain.features import DAYS_OF_WINDOW, HIDDEN_DAYS, HOURS_OF_24H, MOMENTS

# A snapshot of other moments or windows is not ours to read: the log is replayed in its place.
# Measures may differ: each slice says by their digests which it has.
_FRAME = blake2b(
    repr((MOMENTS, DAYS_OF_WINDOW, HIDDEN_DAYS, HOURS_OF_24H)).encode(), digest_size=8
).digest()
Lacking = Mapping[str, tuple[int, ...]]  # by brand: places of measures in the list of today
_MAGIC = b"crmshard3" + _FRAME


class ShardSnapshot(msgspec.Struct, array_like=True):
    """Features of `shard` with every event up to `seq`, by a clock that stood at `now_us`."""

    shard: int
    seq: int
    now_us: int
    brands: dict[str, TableSlice]

    def lacking(self, brands: Mapping[str, Brand]) -> Lacking:
        """Return the measures, by brand, that are in the lists of today and not in here."""
        lists = {brand: features_of(brands[brand]) for brand in self.brands}
        found = {
            brand: tuple(lists[brand].index[name] for name in lists[brand].lacking(part.measures))
            for brand, part in self.brands.items()
        }
        return {brand: measures for brand, measures in found.items() if measures}

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
