"""Ray Serve up and down."""

from __future__ import annotations

from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from deployments.api.deployment import ApiDeployment, ApiSpec
from deployments.live.deployment import LiveDeployment, LiveSpec
from deployments.live.tickets import PATH as LIVE
from deployments.settings import ApiSettings, LiveSettings


def start(
    settings: ApiSettings, spec: ApiSpec, live_settings: LiveSettings, live_spec: LiveSpec
) -> None:
    """Serve the API and the live socket; returns when their replicas answer."""
    logs = LoggingConfig(encoding="JSON", log_level="WARNING", enable_access_log=False)
    serve.start(
        http_options=HTTPOptions(
            host=settings.host, port=settings.port, request_timeout_s=settings.request_timeout_s
        ),
        logging_config=logs,
    )
    api = ApiDeployment.options(num_replicas=settings.replicas)
    live = LiveDeployment.options(num_replicas=live_settings.replicas)
    serve.run_many(
        [
            serve.RunTarget(api.bind(spec), name="api", route_prefix="/", logging_config=logs),
            serve.RunTarget(live.bind(live_spec), "live", LIVE, logging_config=logs),
        ]
    )


def stop() -> None:
    """Stop serving: requests in flight are answered first."""
    serve.shutdown()  # type: ignore[no-untyped-call]  # Ray has no types
