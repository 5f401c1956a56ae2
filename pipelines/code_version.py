"""Which code a training ran with: also where there is no Git, as on a worker of a cluster."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("crm", "pipelines")  # all that decides what a training finds
_ROOT = Path(__file__).resolve().parents[1]
_DIGITS = 12


@cache
def code_version() -> str:
    """Return the product's version, and a digest of the code that trains: 0.1.0+3f2a..."""
    digest = sha256()
    for package in PACKAGES:
        for file in sorted((_ROOT / package).rglob("*.py")):
            digest.update(f"{file.relative_to(_ROOT)}\0".encode())
            digest.update(file.read_bytes())
    return f"{version('crm-inteligente')}+{digest.hexdigest()[:_DIGITS]}"
