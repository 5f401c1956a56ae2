"""House rules that neither ruff nor import-linter can state."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import isolation

CLONE = Path(__file__).resolve().parents[2]
PACKAGES = ("cluster", "deployments", "pipelines", "actors", "crm", "configs")
PRODUCT = sorted(file for package in PACKAGES for file in (CLONE / package).rglob("*.py"))
TESTS = sorted((CLONE / "tests").rglob("*.py"))
DOMAIN = sorted((CLONE / "crm" / "domain").rglob("*.py"))
POSTGRES = CLONE / "crm" / "adapters" / "postgres"

MAY_ENTER_THE_DOMAIN = {"numpy", "msgspec", "lark", "crm", "__future__"}
TOO_HEAVY_FOR_THE_DOMAIN = {"ray", "pandas", "pyarrow", "polars", "sklearn", "pydantic", "fastapi"}
SAYS_NOTHING = re.compile(r"(Manager|Helper|Util|Utils|Handler|Base|V\d)$")
WAIVER = re.compile(r"#\s*(noqa|type: ignore|nosec|pragma: no cover)\b(?P<rest>.*)")
CODES = re.compile(r"^(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*|\[[\w\-, ]+\])")
QUERY = re.compile(r"^-- name: *(?P<name>.*)$", re.MULTILINE)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def _where(file: Path, node: ast.AST) -> str:
    return f"{file.relative_to(CLONE)}:{getattr(node, 'lineno', 0)}"


def _imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_the_domain_imports_only_the_standard_library_and_three_packages() -> None:
    allowed = sys.stdlib_module_names | MAY_ENTER_THE_DOMAIN
    strangers = [
        f"{_where(file, node)} imports {name}"
        for file in DOMAIN
        for node, name in _imports(_tree(file))
        if name.partition(".")[0] not in allowed
        or (name.startswith("crm") and not name.startswith("crm.domain"))
    ]
    assert not strangers


def test_importing_the_domain_loads_nothing_heavy() -> None:
    names = [".".join(file.relative_to(CLONE).with_suffix("").parts) for file in DOMAIN]
    lines = [f"import {name.removesuffix('.__init__')}" for name in names]
    lines += ["import sys", f"print(*({TOO_HEAVY_FOR_THE_DOMAIN!r} & sys.modules.keys()))"]
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not loaded.stdout.split()


def test_async_code_never_blocks_on_ray_get() -> None:
    blocking = [
        _where(file, call)
        for file in (*PRODUCT, *TESTS)
        for function in ast.walk(_tree(file))
        if isinstance(function, ast.AsyncFunctionDef)
        for call, name in _calls(function)
        if name in {"ray.get", "ray.wait"}
    ]
    assert not blocking, "await the reference itself"


def test_classes_are_named_for_what_they_are() -> None:
    vague = [
        f"{_where(file, node)} {node.name}"
        for file in PRODUCT
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.ClassDef) and SAYS_NOTHING.search(node.name)
    ]
    assert not vague


def test_tests_wait_for_conditions_and_never_sleep() -> None:
    sleeping = [
        _where(file, call)
        for file in TESTS
        if file.name != "wait.py"
        for call, name in _calls(_tree(file))
        if name in {"time.sleep", "asyncio.sleep"} and ast.unparse(call.args[0]) != "0"
    ]
    assert not sleeping, "use tests.support.wait"


def test_each_waived_rule_is_named_and_has_its_reason() -> None:
    bare = [
        f"{file.relative_to(CLONE)}:{number}"
        for file in (*PRODUCT, *TESTS)
        if file != Path(__file__)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (waiver := WAIVER.search(line)) and not _explained(waiver["rest"])
    ]
    assert not bare, "write `# noqa: CODE - why`"


def _explained(rest: str) -> bool:
    codes = CODES.match(rest)
    return codes is not None and re.search(r"[a-z]{3}", rest[codes.end() :]) is not None


@pytest.mark.parametrize(
    ("rest", "explained"),
    [
        (": S608 - the name is ours", True),
        ("[import-untyped]  # ships no types", True),
        (": S608", False),
        ("", False),
    ],
)
def test_a_waiver_needs_code_and_reason(rest: str, explained: bool) -> None:
    assert _explained(rest) is explained


def test_each_query_has_a_name_and_a_why() -> None:
    faults = [
        f"{file.name}: {fault}"
        for file in sorted((POSTGRES / "queries").rglob("*.sql"))
        for fault in _query_faults(file.read_text(encoding="utf-8"))
    ]
    assert not faults


def _query_faults(sql: str) -> Iterator[str]:
    heads = list(QUERY.finditer(sql))
    before = sql[: heads[0].start()] if heads else sql
    if re.sub(r"--.*", "", before).strip():
        yield "a statement without `-- name:` above it"
    names = [head["name"].strip() for head in heads]
    yield from (f"{name!r} is no snake_case name" for name in names if not _is_snake_case(name))
    yield from (f"{name!r} comes twice" for name in sorted(set(names)) if names.count(name) > 1)
    for head in heads:
        if not re.match(r"\n-- \S", sql[head.end() :]):
            yield f"{head['name']!r} needs a line `-- why` under its name"


def _is_snake_case(name: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None


@pytest.mark.parametrize(
    ("sql", "faults"),
    [
        (
            "-- name: add_event\n-- one row an id, so a retry is seen\nINSERT INTO t VALUES (1);\n",
            0,
        ),
        (
            "-- all of it\n\n-- name: a\n-- why\nSELECT 1;\n\n-- name: b\n-- why\nSELECT 2;\n",
            0,
        ),
        ("SELECT 1;\n", 1),
        ("-- name: a\nSELECT 1;\n", 1),
        ("-- name: a\n-- why\nSELECT 1;\n-- name: a\n-- why\nSELECT 2;\n", 1),
        ("-- name: AddEvent\n-- why\nSELECT 1;\n", 1),
    ],
)
def test_a_query_file_is_judged_by_its_comments(sql: str, faults: int) -> None:
    assert len(list(_query_faults(sql))) == faults


def test_each_migration_is_numbered_once_and_says_why() -> None:
    files = sorted((POSTGRES / "migrations").glob("*.sql"))
    numbers = [file.name[:4] for file in files]
    assert len(set(numbers)) == len(files)
    for file in files:
        assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", file.name), file.name
        assert re.match(r"-- \S", file.read_text(encoding="utf-8")), f"{file.name}: say why first"


def test_a_unit_test_cannot_open_a_connection() -> None:
    with socket.socket() as client, pytest.raises(AssertionError, match="tests/integration"):
        client.connect(("127.0.0.1", 9))


def test_a_unit_test_cannot_start_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ModuleType("ray")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray, "init", lambda: None, raising=False)
    isolation.forbid_ray_and_sockets(monkeypatch)
    with pytest.raises(AssertionError, match="tests/integration"):
        ray.init()


@pytest.mark.parametrize("there_before", [True, False])
def test_a_ray_that_a_test_starts_behind_the_guard_is_ended_and_refused(
    monkeypatch: pytest.MonkeyPatch, there_before: bool
) -> None:
    up = [there_before]
    ray = ModuleType("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: up[-1], raising=False)
    monkeypatch.setattr(ray, "shutdown", lambda: up.append(False), raising=False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    expected = nullcontext() if there_before else pytest.raises(AssertionError, match=r"ray\.init")
    with expected, isolation.no_new_ray():
        up.append(True)
    assert up[-1] is there_before


@pytest.mark.parametrize(
    "name", ["cluster", "deployments", "pipelines", "actors", "configs", "crm"]
)
def test_each_package_of_the_design_is_there(name: str) -> None:
    assert (CLONE / name / "__init__.py").is_file()


def test_only_a_training_that_records_loads_mlflow() -> None:
    """It takes seconds, and pools of its own: no replica, owner or command needs it."""
    entries = ("configs.settings", "deployments.api.app", "pipelines.model_registry", "cluster.app")
    heavy = {"mlflow", "psycopg"}
    lines = [f"import {name}" for name in entries]
    lines += ["import sys", f"print(*({heavy!r} & sys.modules.keys()))"]
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not loaded.stdout.split()


def test_pages_that_the_product_names_are_there() -> None:
    named = {
        (file, page)
        for file in PRODUCT
        for page in re.findall(r"docs/[\w/-]+\.md", file.read_text(encoding="utf-8"))
    }
    assert named
    assert not [f"{file}: {page}" for file, page in named if not (CLONE / page).is_file()]
