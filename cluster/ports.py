"""Free ports of loopback."""

from __future__ import annotations

import secrets
import socket

from cluster.errors import ServiceError

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one.
# Single ports and blocks come from ranges apart: neither is bound yet when the other is chosen.
_SINGLE = range(20_000, 22_000)
_BLOCKS = range(22_000, 32_000)


def is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def claim(host: str, port: int, setting: str) -> int:
    """Return `port`, or any free one for 0; raises ServiceError when somebody listens there."""
    if port == 0:
        return _free(_SINGLE, 1)
    if not is_free(host, port):
        raise ServiceError(f"port {port} on {host} is in use: free it, or set {setting} (0: any)")
    return port


def free_block(size: int) -> int:
    """Return the first of `size` ports in a row on which nobody listens."""
    return _free(_BLOCKS, size)


def _free(among: range, size: int) -> int:
    for _ in range(100):
        first = among.start + secrets.randbelow(len(among) - size)
        if all(is_free("127.0.0.1", port) for port in range(first, first + size)):
            return first
    raise ServiceError(f"no {size} free ports between {among.start} and {among.stop}")
