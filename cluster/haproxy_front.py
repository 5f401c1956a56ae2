"""Start HAProxy as Ray Serve asked, with its configuration mended first.

Serve writes the configuration and has no setting for what is changed here: where the stats and
metrics pages listen, who may use the admin socket, what is logged, and what a client is told while
no replica answers. Runs by itself, without the rest of the project:
`python -I haproxy_front.py HAPROXY ARGUMENTS...`.
"""

import ctypes
import json
import os
import re
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_RULES = (
    # Serve takes these from any client: they would lift its time-outs or choose its replicas.
    "del-header x-request-timeout-seconds",
    "del-header x-request-disconnect-disabled",
    "del-header serve_multiplexed_model_id",
    "del-header x-session-id",
    # A live socket outlives Serve's time-out, and notices itself when its client leaves; without
    # compression it takes half the memory. It shows its ticket within seconds, or is closed.
    "set-header x-request-timeout-seconds 0 if { path /v1/live } { hdr(upgrade) -m found }",
    "set-header x-request-disconnect-disabled ?1 if { path /v1/live } { hdr(upgrade) -m found }",
    "del-header sec-websocket-extensions",
    # Serve's own pages ask for no key.
    "deny deny_status 404 if { path_beg /-/ }",
)
_TUNNEL = "timeout tunnel 90s"
# What HAProxy itself has to say: each may be tried again, so none is a 404 or a 500.
_AWAY = {
    502: ("Bad Gateway", "the answer was lost; what was sent may be sent again"),
    503: ("Service Unavailable", "no replica of the API answers yet; try again"),
    504: ("Gateway Timeout", "the API does not answer in time; what was sent may be sent again"),
}


def _answer(status: int) -> str:
    """Return the part of a rule that answers with a problem (RFC 9457)."""
    title, detail = _AWAY[status]
    problem = {
        "type": "about:blank", "title": title, "status": status, "detail": detail,
        "code": "warming", "message": detail,
    }  # fmt: skip
    body = json.dumps(json.dumps(problem))  # HAProxy's quotes are escaped as JSON's are
    return f"status {status} content-type application/problem+json string {body} hdr retry-after 1"


def mended(config: str) -> str:
    """Return the configuration on loopback only, with no request in a log; safe to repeat.

    While Serve has not told where the replicas are, and while none answers, a client gets a problem
    with Retry-After.
    """
    config = re.sub(r"^(\s*bind) (?:\*|):(\d+)$", r"\1 127.0.0.1:\2", config, flags=re.MULTILINE)
    config = config.replace(" mode 666 level admin", " mode 600 level admin")
    config = re.sub(r"^\s*log \S+ local0 info\n", "", config, flags=re.MULTILINE)  # has queries
    if _TUNNEL not in config:  # a socket whose client is gone frees its place; a live one speaks
        config = re.sub(r"^defaults\n", f"defaults\n    {_TUNNEL}\n", config, flags=re.MULTILINE)
    config = re.sub(
        r"^(\s*)errorfile (50[234]) .*$",
        lambda found: f"{found[1]}http-error {_answer(int(found[2]))}",
        config,
        flags=re.MULTILINE,
    )
    unrouted = r"^(backend default_backend\n\s*http-request return )status 404 .*$"
    config = re.sub(unrouted, lambda found: found[1] + _answer(503), config, flags=re.MULTILINE)
    if _RULES[0] not in config:
        rules = "".join(f"    http-request {rule}\n" for rule in _RULES)
        front = r"^(frontend http_frontend\n\s*bind .*\n)"
        config = re.sub(front, rf"\1{rules}", config, flags=re.MULTILINE)
    return config


def main() -> None:
    """Mend the file named after -f, then become HAProxy."""
    haproxy, *arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        path.write_text(mended(path.read_text()))
    # Its parent is a Ray worker, which may be killed: HAProxy must not outlive it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.execv(haproxy, [haproxy, *arguments])  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
