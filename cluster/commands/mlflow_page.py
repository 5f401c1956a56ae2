"""`crm mlflow`: MLflow's page on the store of the running service, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import typer

from cluster.commands.support import addressed, fail
from configs.settings import CLONE

REQUIREMENTS = CLONE / "configs" / "mlflow" / "requirements.txt"
ENVIRONMENT = CLONE / ".venv-mlflow"


def register(app: typer.Typer) -> None:
    """Add `mlflow` to `app`."""
    app.command("mlflow")(mlflow)


def mlflow() -> None:
    """Open MLflow's page on the running service's store; Ctrl-C ends it."""
    from crm.adapters.mlflow_runs import artifact_root, is_server, store_of
    from crm.domain.error_lines import without_secrets

    settings = addressed()
    store = store_of(settings.mlflow, str(settings.postgres.direct_dsn))
    if is_server(store):
        typer.echo(f"runs are kept by the server at {without_secrets(store)}: open it there")
        return
    own = program()
    port = settings.mlflow.page_port
    typer.echo(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends it)")
    root = artifact_root(str(settings.lake.uri))
    os.execve(own, command(own, port, root), environment(store))  # noqa: S606 - no shell in it


def command(own: Path, port: int, root: str) -> list[str]:
    """Return the command line: what is secret is not in it."""
    return [
        str(own), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--no-serve-artifacts", "--default-artifact-root", f"{root}/default",
    ]  # fmt: skip


def environment(store: str) -> dict[str, str]:
    """Return the page's environment: the store, which may hold a password, and no telemetry."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes for work that is not ours
        "PYTHONWARNINGS": "ignore",
    }
    return {**inherited, **own}


def program() -> Path:
    """Return MLflow's program, making its environment first if it lacks or is out of date."""
    made, wanted = ENVIRONMENT / "made-of.txt", REQUIREMENTS.read_text(encoding="utf-8")
    if not made.is_file() or made.read_text(encoding="utf-8") != wanted:
        typer.echo("making MLflow's own environment (once)")
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT))
        python = str(ENVIRONMENT / "bin" / "python")
        _uv("pip", "install", "--quiet", "--python", python, "-r", str(REQUIREMENTS))
        made.write_text(wanted, encoding="utf-8")
    return ENVIRONMENT / "bin" / "mlflow"


def _uv(*arguments: str) -> None:
    ours = Path(sys.executable).parent / "uv"
    uv = str(ours) if ours.is_file() else shutil.which("uv")
    if uv is None:
        fail("uv is missing: run `make setup`")
    if subprocess.run([uv, *arguments], check=False).returncode != 0:
        fail("MLflow's environment cannot be made: what uv said is above")
