"""The reference of bench/predictions.py: the same models behind plain FastAPI.

    python bench/prediction_service.py PORT FOLDER

FOLDER has the models' documents, and `features.json` with every player's features.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from crm.adapters.scorers import open_scorer
from crm.domain.clustering import PlayerClusters
from crm.domain.models import ScoreModel
from crm.domain.predictions import BrandModels, predictions


class Asked(BaseModel):
    """Players of a brand."""

    brand: str
    player_ids: list[str]


def _service(folder: Path) -> FastAPI:
    features: dict[str, dict[str, Any]] = json.loads((folder / "features.json").read_text())

    def score(name: str) -> Any:
        document = (folder / f"{name}.json").read_bytes()
        return open_scorer(msgspec.json.decode(document, type=ScoreModel))

    clusters = msgspec.json.decode((folder / "clusters-1.json").read_bytes(), type=PlayerClusters)
    models = BrandModels(
        clusters, score("churn-1"), score("value-1"),
        {"clusters": "clusters-1", "churn": "churn-1", "value": "value-1"},
    )  # fmt: skip
    rows = {
        player: np.array(
            [np.nan if of[name] is None else float(of[name]) for name in models.features]
        )
        for player, of in features.items()
    }
    app = FastAPI()

    @app.post("/v1/predictions")
    def predict(asked: Asked) -> dict[str, Any]:
        columns = np.array([rows[player] for player in asked.player_ids]).T
        values = dict(zip(models.features, columns, strict=True))
        players = list(enumerate(asked.player_ids))
        told = predictions(models, models.rows_of(values), players, datetime.now(UTC))
        return {"predictions": [msgspec.to_builtins(one) for one in told]}

    return app


if __name__ == "__main__":
    served = _service(Path(sys.argv[2]))
    uvicorn.run(served, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
