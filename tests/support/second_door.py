"""One more replica of a running instance's API, as a process of its own: second_door PORT.

Ray's own fault injection (RAY_testing_rpc_failure) is read when a process starts, and acts on the
calls that it makes: in this one it hits the calls to the shard owners, and nothing else.
"""

from __future__ import annotations

import sys

from cluster import app


def main() -> None:
    """Serve until killed."""
    app.prepare()  # Ray's flags, before anything imports it
    import uvicorn

    from cluster.commands.support import connected
    from configs.brands import load_brands
    from crm.adapters.rates import load_rates
    from deployments.api.app import create_app
    from deployments.api.deployment import ApiSpec, _services

    with connected() as settings:
        brands = load_brands(settings.brands_dir)
        dsn, redis = str(settings.postgres.dsn), str(settings.redis.url)
        lake = str(settings.lake.uri)
        assert settings.vault.key_file is not None
        rates = load_rates(settings.rates_file, brands.values())
        spec = ApiSpec(brands, rates, dsn, redis, lake, settings.vault.key_file)
        api = create_app(_services(spec))
        uvicorn.run(api, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
