"""A brand gets a measure of its own while events come in: nobody is refused, nothing is missed."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.support.instance import Instance, a_place
from tests.support.wait import wait_for

BRANDS = Path(__file__).parents[2] / "configs" / "brands"
MEASURE = """
measures:
  - {name: odds, event: bet.placed, property: odds, scale: 100, aggregate: mean, meaning: odds}
"""
PLAYERS = 40


class Ingest(threading.Thread):
    """Sends bets one after the other until it is told to stop; remembers every answer."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(daemon=True)
        self._url = instance.state()["url"]
        self._key = {"Authorization": f"Bearer {instance.key()}"}
        self._stop_it = threading.Event()
        self.answers: list[int] = []
        self.sent = 0

    def run(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._key, timeout=60) as client:
            while not self._stop_it.is_set():
                self._send(client)

    def _send(self, client: httpx.Client) -> None:
        events = [self._bet(self.sent + n) for n in range(20)]
        answer = client.post("/v1/events", json={"events": events})
        self.answers.append(answer.status_code)
        self.sent += answer.json()["accepted"] if answer.status_code == httpx.codes.OK else 0
        asked = {"brand": "demo"}
        player = f"p{(self.sent - 1) % PLAYERS}"
        answer = client.get(f"/v1/players/{player}/features", params=asked)
        self.answers.append(answer.status_code)

    def _bet(self, number: int) -> dict[str, object]:
        return {
            "event_id": f"e{number}", "type": "bet.placed", "player_id": f"p{number % PLAYERS}",
            "brand": "demo", "amount": "1.00", "properties": {"odds": 1.5 + number % 2},
            "occurred_at": (datetime.now(UTC) - timedelta(hours=number % 50)).isoformat(),
        }  # fmt: skip

    def finish(self) -> None:
        """Stop, and wait for the last answer."""
        self._stop_it.set()
        self.join(60)


@pytest.mark.slow
def test_a_new_measure_is_counted_from_the_first_event_on_while_events_come_in(
    tmp_path: Path,
) -> None:
    shutil.copytree(BRANDS, tmp_path / "brands")
    own = {"CRM_BRANDS_DIR": str(tmp_path / "brands")}
    with a_place() as instance:
        started = instance.crm("up", **own)
        assert started.returncode == 0, started.stderr
        ingest = Ingest(instance)
        ingest.start()
        wait_for(lambda: ingest.sent > 1_000, "events are in", deadline_s=60)
        with (tmp_path / "brands" / "demo.yaml").open("a") as file:
            file.write(MEASURE)
        before = len(ingest.answers)
        applied = instance.crm("apply", "--json", **own)
        assert applied.returncode == 0, applied.stderr
        assert len(ingest.answers) > before, "nothing came in meanwhile"
        assert applied.stderr.count("moving") == len(applied.stderr.splitlines())  # none of Ray's
        pause_s = json.loads(applied.stdout.splitlines()[-1])["longest_pause_s"]
        owners = instance.owner_pids()
        again = instance.crm("apply", **own)
        assert "nothing has changed" in again.stdout
        assert instance.owner_pids() == owners
        ingest.finish()
        assert set(ingest.answers) == {httpx.codes.OK}
        verified = instance.crm("verify", "features", "--brand", "demo", "--json", **own)
        assert verified.returncode == 0, verified.stderr
        found = json.loads(verified.stdout.splitlines()[-1])
        assert (found["max_difference"], found["features"]) == (0, 413 + 5)
        answer = _features(instance, "p0")
        assert answer["bet_count_lifetime"] == (ingest.sent + PLAYERS - 1) // PLAYERS
        assert answer["mean_odds_lifetime"] == 1.5  # p0 gets the even numbers
        assert pause_s < 60


def _features(instance: Instance, player: str) -> dict[str, float]:
    answer = httpx.get(
        f"{instance.state()['url']}/v1/players/{player}/features",
        params={"brand": "demo"},
        headers={"Authorization": f"Bearer {instance.key()}"},
        timeout=30,
    )
    found: dict[str, float] = answer.json()["features"]
    return found
