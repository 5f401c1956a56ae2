"""What is changed in the configuration that Ray Serve writes for HAProxy."""

from __future__ import annotations

import json
import re
import runpy

import pytest

from cluster.haproxy_front import mended
from tests.support.processes import folder_of

# Serve's own template, read without importing Ray, every hole filled with a number
TEMPLATES = runpy.run_path(str(folder_of("ray") / "serve" / "_private" / "haproxy_templates.py"))
CONFIG = re.sub(r"\{\{ config\.\w+ \}\}", "1234", TEMPLATES["HAPROXY_CONFIG_TEMPLATE"])


def test_every_page_without_a_host_is_bound_to_loopback() -> None:
    assert re.findall(r"bind (?:\*|):\d+", CONFIG)
    assert not re.findall(r"bind (?:\*|):\d+", mended(CONFIG))
    assert mended(CONFIG).count("bind 127.0.0.1:1234") == 2


def test_no_request_line_goes_to_the_system_log() -> None:
    assert "local0 info" in CONFIG
    assert "local0 info" not in mended(CONFIG)


def test_only_its_owner_may_use_the_admin_socket() -> None:
    assert "mode 666 level admin" in CONFIG
    assert "mode 600 level admin" in mended(CONFIG)
    assert "mode 666" not in mended(CONFIG)


@pytest.mark.parametrize(
    "header",
    [
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
        "serve_multiplexed_model_id",
        "x-session-id",
    ],
)
def test_headers_that_steer_serve_are_taken_from_no_client(header: str) -> None:
    frontend = mended(CONFIG).partition("frontend http_frontend\n")[2].partition("\nbackend")[0]
    dropped = f"http-request del-header {header}\n"
    assert dropped in frontend
    # before Serve's own rules look at the request
    assert frontend.index(dropped) < frontend.index("use_backend")


def test_only_a_live_socket_outlives_serves_time_out() -> None:
    frontend = mended(CONFIG).partition("frontend http_frontend\n")[2].partition("\nbackend")[0]
    dropped = frontend.index("del-header x-request-timeout-seconds\n")
    (lifted,) = re.findall(r"set-header x-request-timeout-seconds .*", frontend)
    assert lifted.endswith(" 0 if { path /v1/live } { hdr(upgrade) -m found }")
    assert dropped < frontend.index(lifted)  # what a client says of it stays without effect
    assert "http-request del-header sec-websocket-extensions\n" in frontend


def test_a_socket_that_nobody_speaks_on_is_closed_by_the_front() -> None:
    defaults = mended(CONFIG).partition("\ndefaults\n")[2].partition("\nfrontend")[0]
    assert "    timeout tunnel 90s\n" in defaults


def test_serves_own_pages_stop_at_the_front() -> None:
    frontend = mended(CONFIG).partition("frontend http_frontend\n")[2].partition("\nbackend")[0]
    assert "    http-request deny deny_status 404 if { path_beg /-/ }\n" in frontend


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_the_front_says_itself_is_a_problem_that_may_be_tried_again(status: int) -> None:
    assert f"errorfile {status} " in CONFIG
    assert "errorfile" not in mended(CONFIG)
    (rule,) = re.findall(rf"^    http-error status {status} .*$", mended(CONFIG), re.MULTILINE)
    assert " content-type application/problem+json " in rule
    assert rule.endswith(" hdr retry-after 1")
    body = json.loads(json.loads(re.findall(r' string (".*") hdr ', rule)[0]))
    assert body["status"] == status
    assert body["code"] == "warming"


def test_a_path_is_not_missing_because_serve_has_not_told_where_it_is() -> None:
    assert "return status 404 content-type" in CONFIG
    assert "return status 404 content-type" not in mended(CONFIG)
    default = mended(CONFIG).partition("\nbackend default_backend\n")[2].splitlines()[0]
    assert default.startswith("    http-request return status 503 content-type application/problem")


def test_mending_again_changes_nothing() -> None:
    assert mended(mended(CONFIG)) == mended(CONFIG)
