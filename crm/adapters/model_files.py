"""The files of models in the lake: a folder each, which only the registry makes a model's."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256

from crm.adapters.lake import Lake
from crm.domain.errors import ModelFileLost
from crm.domain.model_changes import DOCUMENT, StoredModel
from crm.domain.models import RegisteredModel, TrainedModel

FOLDER = "models"


class LakeModelFiles:
    """`models/ID/NAME` in the lake at `uri`, which is opened at the first use."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _lake(self) -> Lake:
        return Lake(self._uri)

    def put(self, model: TrainedModel) -> None:
        """Store the document and the files; storing them again changes nothing."""
        for name, data in {**model.files, DOCUMENT: model.document}.items():
            self._lake.write(f"{FOLDER}/{model.id}/{name}", data, durable=True)

    def read(self, model: RegisteredModel, name: str, digest: bytes) -> bytes:
        """Return a file; raises ModelFileLost."""
        try:
            data = self._lake.read(f"{FOLDER}/{model.id}/{name}")
        except OSError:
            raise ModelFileLost(
                f"{name} of model {model.id} cannot be read from the lake"
            ) from None
        if sha256(data).digest() != digest:
            raise ModelFileLost(f"{name} of model {model.id} is not what was registered")
        return data

    def stored(self) -> list[StoredModel]:
        """Return every model of which anything is stored."""
        newest: dict[str, StoredModel] = {}
        for path, at in self._lake.names(FOLDER).items():
            model = path.split("/")[1]
            if model not in newest or newest[model].at < at:
                newest[model] = StoredModel(model, at)
        return list(newest.values())

    def forget(self, model: str) -> None:
        """Delete all that is stored of a model."""
        for name in self._lake.names(f"{FOLDER}/{model}"):
            self._lake.delete(name)
