"""Fixtures that every test may ask for; what they are made of lies in tests/support."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.support")

from tests.support import isolation, postgres, redis, servers  # noqa: E402 - after the rewrite
from tests.support.clock import Clock, a_clock  # noqa: E402 - after the rewrite
from tests.support.ray import prepare_environment, ray_session  # noqa: E402 - after the rewrite

_HERE = Path(__file__).parent
_ISOLATED = (_HERE / "unit", _HERE / "property")
_WHOLE = (_HERE / "e2e", _HERE / "chaos")  # with instances of their own

prepare_environment()
# a slow machine is no fault: tests never assert on time
_slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=_slow)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=200, print_blob=True)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        choices=["embedded", "configured", "both"],
        default="embedded",
        help="what integration tests run on: embedded servers (default), configured ones "
        f"({postgres.CONFIGURED}, {redis.CONFIGURED}, or a local PostgreSQL), or each once",
    )

    parser.addoption(
        "--fire",
        choices=["short", "long"],
        default="short",
        help="how hard the fault experiments are: short (default), or long (`make chaos`)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_KINDS] = _kinds(config.getoption("servers"))


def pytest_report_header(config: pytest.Config) -> str:
    kinds = config.stash[_KINDS]
    missing = config.getoption("servers") != "embedded" and "configured" not in kinds
    why = f" (skipped on configured ones: set {postgres.CONFIGURED})" if missing else ""
    return f"servers: {', '.join(kinds) or 'none'}{why}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "running_servers" in metafunc.fixturenames:
        kinds = metafunc.config.stash[_KINDS]
        if metafunc.definition.get_closest_marker("one_server"):
            kinds = kinds[:1]
        metafunc.parametrize("running_servers", kinds, indirect=True, scope="session")


_KINDS = pytest.StashKey[list[servers.Kind]]()


def _kinds(wanted: str) -> list[servers.Kind]:
    if wanted == "embedded":
        return ["embedded"]
    return [kind for kind in servers.available() if wanted in ("both", kind)]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what is isolated first, for the fast news; then whole instances; then parts on one Ray.

    A Ray that waits for its next test takes a tenth of a core from whoever runs beside it. What is
    long is left to --fire=long.
    """
    if config.getoption("fire") == "short":
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    items.sort(
        key=lambda item: 0 if _lies_in(_ISOLATED, item) else 1 if _lies_in(_WHOLE, item) else 2
    )


def _lies_in(folders: tuple[Path, ...], item: pytest.Item) -> bool:
    return any(folder in item.path.parents for folder in folders)


@pytest.fixture(autouse=True)
def _isolated(request: pytest.FixtureRequest) -> Iterator[None]:
    if not _lies_in(_ISOLATED, request.node):
        yield
        return
    # a patch of its own: a test may undo what it patched itself
    with isolation.no_new_ray(), pytest.MonkeyPatch.context() as patch:
        isolation.forbid_ray_and_sockets(patch)
        yield


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until the test moves it."""
    return a_clock()


@pytest.fixture(scope="session")
def running_servers(request: pytest.FixtureRequest) -> Iterator[servers.Servers]:
    """PostgreSQL and Redis; a test that asks runs once on each kind that --servers names."""
    with servers.running(request.param) as running:
        yield running


@pytest.fixture(scope="session")
def _template(running_servers: servers.Servers) -> Iterator[str]:
    name = postgres.make_template(running_servers.dsn)
    yield name
    postgres.drop_database(running_servers.dsn, name)


@pytest.fixture
def dsn(running_servers: servers.Servers, _template: str) -> Iterator[str]:
    """DSN of a new, migrated, empty database of the test's own."""
    name = postgres.make_database(running_servers.dsn, _template)
    yield postgres.with_database(running_servers.dsn, name)
    postgres.drop_database(running_servers.dsn, name)


@pytest.fixture
def bare_dsn(running_servers: servers.Servers) -> Iterator[str]:
    """DSN of a new database without a schema, for tests of the migrations themselves."""
    name = postgres.make_database(running_servers.dsn)
    yield postgres.with_database(running_servers.dsn, name)
    postgres.drop_database(running_servers.dsn, name)


@pytest.fixture
def redis_url(running_servers: servers.Servers) -> str:
    """URL of a Redis database that is empty."""
    redis.empty(running_servers.redis_url)
    return running_servers.redis_url


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """The one Ray of the run: connect by `ray` itself, namespace `crm`."""
    with ray_session():
        yield
