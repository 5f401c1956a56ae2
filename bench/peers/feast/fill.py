"""Make a Feast repository on Redis and fill it: run by bench/feature_read.py in Feast's own venv.

python fill.py FOLDER REDIS_PORT NAMES_FILE PLAYERS
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

SLICE = 500
SOME = 50  # features of the service "some"

port = sys.argv[2]
folder, names_file, players = Path(sys.argv[1]), Path(sys.argv[3]), int(sys.argv[4])
names = json.loads(names_file.read_text())
(folder / "feature_store.yaml").write_text(
    f"""project: bench
provider: local
registry: {folder}/registry.db
online_store: {{type: redis, connection_string: "127.0.0.1:{port}"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""
)
now = datetime.now(UTC)
source_file = folder / "features.parquet"
pd.DataFrame({"player_id": ["x"], "at": [now], **{name: [0] for name in names}}).to_parquet(
    source_file
)
player = Entity(name="player", join_keys=["player_id"], value_type=ValueType.STRING)
view = FeatureView(
    name="features",
    entities=[player],
    schema=[Field(name=name, dtype=Int64) for name in names],
    source=FileSource(path=str(source_file), timestamp_field="at"),
)
store = FeatureStore(folder)
some = FeatureService(name="some", features=[view[names[:SOME]]])
store.apply([player, view, FeatureService(name="all", features=[view]), some])
rng = np.random.default_rng(1)
for start in range(0, players, SLICE):
    ids = [f"player-{n}" for n in range(start, min(start + SLICE, players))]
    values = rng.integers(0, 1_000_000, (len(names), len(ids)))
    rows = pd.DataFrame({"player_id": ids, "at": now, **dict(zip(names, values, strict=True))})
    store.write_to_online_store("features", rows)
