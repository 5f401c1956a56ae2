"""What fault experiments share: one instance, one durable server, and the table at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from tests.support import postgres
from tests.support.balance import Balance
from tests.support.chaos import what_is_found
from tests.support.fault_table import FaultTable
from tests.support.instance import Instance, a_place
from tests.support.load import LONG_S, Pace
from tests.support.mutants import Mutant
from tests.support.postgres import DURABLE, Server, a_server
from tests.support.profile import PROFILES, Profile
from tests.support.small_disk import SmallDisk, a_small_disk

_HERE = Path(__file__).parent
_TABLE = pytest.StashKey[FaultTable]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = FaultTable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let an experiment take its time: the long profile's are long."""
    for item in (item for item in items if _HERE in item.path.parents):
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.timeout(1_800))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if lines := config.stash[_TABLE].lines():
        terminalreporter.section("fault experiments")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep what mutants make owners say from being rendered, which takes seconds."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> FaultTable:
    """The table of this run."""
    return pytestconfig.stash[_TABLE]


@pytest.fixture(scope="session")
def profile(pytestconfig: pytest.Config) -> Profile:
    """How hard the experiments are."""
    return PROFILES[pytestconfig.getoption("fire")]


def pace_of(mutant: Mutant | None) -> Pace:
    """How long clients try: a mutant may never answer again."""
    return Pace(patience_s=LONG_S if mutant is None else 5)


@dataclass(frozen=True)
class Control:
    """Runs an experiment with a mechanism off, which must show; without a mutant nothing does."""

    table: FaultTable
    patch: pytest.MonkeyPatch

    async def __call__(
        self, experiment: str, mutant: Mutant | None, run: Callable[[], Awaitable[Balance]]
    ) -> None:
        if mutant is None:
            assert await what_is_found(run) == []
            return
        mutant.switch_off(self.patch)
        self.table.control(experiment, mutant.mechanism, mutant.sign, await what_is_found(run))


@pytest.fixture
def control(table: FaultTable, monkeypatch: pytest.MonkeyPatch) -> Control:
    """See Control."""
    return Control(table, monkeypatch)


@pytest.fixture(scope="package")
def durable() -> Iterator[Server]:
    """A PostgreSQL that keeps what it has acknowledged; experiments kill it and start it again."""
    with a_server(DURABLE) as server:
        yield server


@pytest.fixture(scope="package")
def _migrated(durable: Server) -> str:
    return postgres.make_template(durable.dsn)


@pytest.fixture
def database(durable: Server, _migrated: str) -> str:
    """DSN of a new, migrated, empty database there."""
    return postgres.with_database(durable.dsn, postgres.make_database(durable.dsn, _migrated))


@dataclass(frozen=True)
class Shared:
    """The instance that experiments share, and the disk of its stores (None: not allowed here)."""

    instance: Instance
    disk: SmallDisk | None


@pytest.fixture(scope="package")
def shared() -> Iterator[Shared]:
    """An instance that is up; each experiment leaves it healthy."""
    with a_place() as instance, ExitStack() as mounted:
        started = None
        try:
            disk = mounted.enter_context(a_small_disk(instance.var_dir / "data"))
        except PermissionError:
            disk = None
        try:
            started = instance.crm("up")
            assert started.returncode == 0, started.stderr
            yield Shared(instance, disk)
        finally:
            instance.crm("down")  # before its disk is taken away


@pytest.fixture
def instance(shared: Shared) -> Instance:
    """The shared instance."""
    return shared.instance


@pytest.fixture
def history_file(tmp_path: Path) -> Path:
    """Where the clients' history goes."""
    return tmp_path / "history.jsonl"
