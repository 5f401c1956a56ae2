"""Ray Serve up and down."""

from __future__ import annotations

from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from deployments.api.deployment import ApiDeployment, ApiSpec
from deployments.settings import ApiSettings

REQUEST_TIMEOUT_S = 60


def start(settings: ApiSettings, spec: ApiSpec) -> None:
    """Serve the API; returns when its replicas answer."""
    logs = LoggingConfig(encoding="JSON", log_level="WARNING", enable_access_log=False)
    serve.start(
        http_options=HTTPOptions(
            host=settings.host, port=settings.port, request_timeout_s=REQUEST_TIMEOUT_S
        ),
        logging_config=logs,
    )
    api = ApiDeployment.options(num_replicas=settings.replicas)
    serve.run(api.bind(spec), name="api", route_prefix="/", logging_config=logs)


def stop() -> None:
    """Stop serving: requests in flight are answered first."""
    serve.shutdown()  # type: ignore[no-untyped-call]  # Ray has no types
