"""One line of an error that may be shown and stored: without the passwords of addresses."""

from __future__ import annotations

import re

_IN_HOST = re.compile(r"://\S*@")
_IN_QUERY = re.compile(r"(?i)([?&][a-z_]*(?:password|token|secret)[a-z_]*=)[^&\s\"')]*")


def without_secrets(text: str) -> str:
    """Return a text whose addresses name no users, no passwords and no tokens."""
    return _IN_QUERY.sub(r"\1***", _IN_HOST.sub("://***@", text))


def line_of(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it says nothing."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return without_secrets(line)
