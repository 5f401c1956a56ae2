"""Peers: what we are held against, each in an environment of its own under bench/peers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bench.frame import CLONE

PEERS = CLONE / "bench" / "peers"


def python_of(peer: str) -> Path:
    """Return the peer's interpreter, making its environment first if it lacks or is out of date."""
    folder = PEERS / peer
    python, wanted = folder / ".venv" / "bin" / "python", folder / "requirements.txt"
    made = folder / ".venv" / "made-of.txt"
    if not made.is_file() or made.read_text() != wanted.read_text():
        sys.stderr.write(f"making the environment of {peer} (once)\n")
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder / ".venv"))
        _uv("pip", "install", "--quiet", "--python", str(python), "-r", str(wanted))
        made.write_text(wanted.read_text())
    return python


def version_of(peer: str, package: str) -> dict[str, str]:
    """Return the version of a package in a peer's environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    said = subprocess.run([python_of(peer), "-c", code], capture_output=True, text=True, check=True)
    return {package: said.stdout.strip()}


def _uv(*arguments: str) -> None:
    own = Path(sys.executable).parent / "uv"
    uv = str(own) if own.is_file() else shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is missing: run `make setup`")
    subprocess.run([uv, *arguments], check=True)
