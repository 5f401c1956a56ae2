"""Documents of models: decoded by kind, and what is said of those that cannot be."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from crm.domain.errors import ModelUnreadable
from crm.domain.model_documents import decode
from crm.domain.models import ModelKind
from tests.support.models import some_clusters
from tests.support.predictions import a_value_model
from tests.support.scores import a_score_model


def test_each_kind_comes_back() -> None:
    clusters, churn, value = some_clusters(), a_score_model(), a_value_model()
    assert decode("clusters", msgspec.json.encode(clusters)) == clusters
    assert decode("churn", msgspec.json.encode(churn)) == churn
    assert decode("value", msgspec.json.encode(value)) == value


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("clusters", b""),
        ("clusters", b"{}"),
        ("clusters", b'"\xff"'),
        ("churn", b"[" * 100_000),
        ("churn", msgspec.json.encode(some_clusters())),
        ("clusters", msgspec.json.encode(a_score_model())),
        ("churn", msgspec.json.encode(a_value_model())),
    ],
)
def test_what_cannot_be_decoded_is_one_named_fact(kind: ModelKind, document: bytes) -> None:
    with pytest.raises(ModelUnreadable, match=r"^document: ") as caught:
        decode(kind, document)
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message  # noqa: S301 - our own
