"""What an error says may be shown: no password is in it."""

from __future__ import annotations

import pytest

from crm.adapters.mlflow_runs import MlflowRuns
from crm.domain.error_lines import line_of, without_secrets
from crm.domain.errors import RunsAway


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "API request to https://user:s3cret@host/api/2.0 failed",
            "API request to https://***@host/api/2.0 failed",
        ),
        ("redis://:s3cret@host:1/0 is away", "redis://***@host:1/0 is away"),
        ("postgresql://u:s3/cr@et@host/db", "postgresql://***@host/db"),
        ("https://host/x?a=1&password=s3cret&b=2", "https://host/x?a=1&password=***&b=2"),
        ("https://host/x?access_token=s3cret", "https://host/x?access_token=***"),
        ("nothing to hide at http://host:5000", "nothing to hide at http://host:5000"),
    ],
)
def test_addresses_lose_what_is_secret_in_them(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_an_error_is_one_line_and_never_none() -> None:
    assert line_of(ValueError("  one\ntwo")) == "one"
    assert line_of(ValueError()) == "ValueError"


def test_mlflow_s_own_text_does_not_tell_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    runs = MlflowRuns("https://user:s3cret@host", "/nowhere", "ours")

    def fails(_chosen: str) -> None:
        raise MlflowException("API request to https://user:s3cret@host/api failed" + "x" * 300)

    monkeypatch.setattr(runs, "_all_runs", fails)
    with pytest.raises(RunsAway, match=r"https://\*\*\*@host/api") as raised:
        runs.unfinished()
    assert raised.value.__cause__ is None
