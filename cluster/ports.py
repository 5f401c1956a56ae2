"""Free ports of loopback."""

from __future__ import annotations

import secrets
import socket

from cluster.errors import ServiceError

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one.
_LOWEST, _HIGHEST = 20_000, 32_000


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
        return free_block(1)
    if not is_free(host, port):
        raise ServiceError(f"port {port} on {host} is in use: free it, or set {setting} (0: any)")
    return port


def free_block(size: int) -> int:
    """Return the first of `size` ports in a row on which nobody listens."""
    for _ in range(100):
        first = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST - size)
        if all(is_free("127.0.0.1", port) for port in range(first, first + size)):
            return first
    raise ServiceError(f"no {size} free ports in a row between {_LOWEST} and {_HIGHEST}")
