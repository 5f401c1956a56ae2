"""Ray Serve up and down."""

from __future__ import annotations

from dataclasses import dataclass

from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from deployments.api.deployment import ApiDeployment, ApiSpec
from deployments.api.predictions import PATH as PREDICTIONS
from deployments.live.deployment import LiveDeployment, LiveSpec
from deployments.live.tickets import PATH as LIVE
from deployments.scores import NAME as MODELS
from deployments.segmentation import SegmentationDeployment, SegmentationSpec
from deployments.settings import ApiSettings, LiveSettings, PredictionSettings


@dataclass(frozen=True)
class Serving:
    """What is served: each deployment's settings, and what its replicas need to know."""

    api: ApiSettings
    api_spec: ApiSpec
    live: LiveSettings
    live_spec: LiveSpec
    predictions: PredictionSettings
    segmentation_spec: SegmentationSpec


def start(served: Serving) -> None:
    """Serve the API, the live socket and the models; returns when their replicas answer."""
    settings = served.api
    logs = LoggingConfig(encoding="JSON", log_level="WARNING", enable_access_log=False)
    serve.start(
        http_options=HTTPOptions(
            host=settings.host, port=settings.port, request_timeout_s=settings.request_timeout_s
        ),
        logging_config=logs,
    )
    api = ApiDeployment.options(num_replicas=settings.replicas).bind(served.api_spec)
    live = LiveDeployment.options(num_replicas=served.live.replicas).bind(served.live_spec)
    models = SegmentationDeployment.options(num_replicas=served.predictions.replicas).bind(
        served.segmentation_spec
    )
    serve.run_many(
        [
            serve.RunTarget(api, "api", "/", logging_config=logs),
            serve.RunTarget(live, "live", LIVE, logging_config=logs),
            serve.RunTarget(models, MODELS, PREDICTIONS, logging_config=logs),
        ]
    )


def stop() -> None:
    """Stop serving: requests in flight are answered first."""
    serve.shutdown()  # type: ignore[no-untyped-call]  # Ray has no types
