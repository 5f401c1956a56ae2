"""Real data that end yesterday, in UTC and in Los Angeles: no feature differs from its recounts."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import pytest
import yaml

from tests.support.instance import Instance, a_place

CLONE = Path(__file__).parents[2]
DATA = CLONE.parent / "shared" / "data"
AWAY = "America/Los_Angeles"
SETS = {  # file, what its times look like, their format, what a row surely is, features
    "bustabit": (
        "bustabit/bustabit.csv.gz", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "%Y-%m-%dT%H:%M:%SZ",
        "bet.placed", 418,
    ),
    "cdnow": (
        "cdnow/CDNOW_master.txt.gz", r"\b199[78]\d{4}\b", "%Y%m%d", "deposit.completed", 413,
    ),
}  # fmt: skip
DIFFERENT_DAYS = """
SELECT count(*) FROM user_transactions h JOIN user_transactions a USING (event_id)
WHERE h.brand = $1 AND a.brand = $1 || '-away' AND h.type = $2 AND h.local_day <> a.local_day
"""

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="no real data at ../shared/data"),
    pytest.mark.long,
    pytest.mark.timeout(3_600),
]


def _ending_yesterday(text: str, pattern: str, form: str) -> tuple[str, list[datetime]]:
    """The text with every time moved by as many days, and these times."""
    before = [
        datetime.strptime(found, form).replace(tzinfo=UTC) for found in re.findall(pattern, text)
    ]
    days = datetime.now(UTC).date() - timedelta(days=1) - max(before).date()
    after = [time + days for time in before]
    moved = iter(after)
    return re.sub(pattern, lambda _: next(moved).strftime(form), text), after


def _brands(folder: Path, name: str) -> None:
    """The brand as it is shipped, and another like it whose days are those of Los Angeles."""
    here = CLONE / "configs" / "brands" / f"{name}.yaml"
    folder.mkdir()
    shutil.copy(here, folder)
    away = yaml.safe_load(here.read_text()) | {"id": f"{name}-away", "time_zone": AWAY}
    (folder / "away.yaml").write_text(yaml.safe_dump(away))


def _done(instance: Instance, *command: str, **settings: str) -> dict[str, int]:
    done = instance.crm(*command, "--json", **settings)
    assert done.returncode == 0, done.stderr
    print(done.stderr)  # noqa: T201 - with -s: what was compared, and how often each feature is not 0
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", SETS)
async def test_real_data_in_two_zones(tmp_path: Path, name: str) -> None:
    source, pattern, form, kind, features = SETS[name]
    text, times = _ending_yesterday(
        gzip.decompress((DATA / source).read_bytes()).decode(), pattern, form
    )
    file = tmp_path / "moved"
    file.write_text(text)
    _brands(tmp_path / "brands", name)
    own = {"CRM_BRANDS_DIR": str(tmp_path / "brands")}
    with a_place() as instance:
        started = instance.crm("up", **own)
        assert started.returncode == 0, started.stderr
        mapping = str(CLONE / "configs" / "mappings" / f"{name}.yaml")
        for brand in (name, f"{name}-away"):
            command = ("import", str(file), "--mapping", mapping, "--brand", brand)
            report = _done(instance, *command, **own)
            assert (report["accepted"], report["rejected"]) == (len(times), 0)
            found = _done(instance, "verify", "features", "--brand", brand, "--shares", **own)
            assert (found["max_difference"], found["features"]) == (0, features)
            assert found["compared"] == 2 * features * found["players"] > 0
        connection = await asyncpg.connect(instance.state()["postgres"])
        differ = await connection.fetchval(DIFFERENT_DAYS, name, kind)
        await connection.close()
    zone = ZoneInfo(AWAY)
    assert differ == sum(time.date() != time.astimezone(zone).date() for time in times) > 10_000
