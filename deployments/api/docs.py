"""GET /docs: the API's pages, with every script and style from here and none from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CRM Inteligente: API</title>
<link rel="icon" href="docs/assets/favicon.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: "none",
});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PACKAGED = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_CACHED = {"cache-control": "public, max-age=3600"}


def router() -> APIRouter:
    """Return the routes of the documentation; they are open."""
    routes = APIRouter(include_in_schema=False)
    assets = _assets()

    @routes.get("/docs", response_model=None)
    async def page() -> Response:
        """Return the page, which renders /openapi.json."""
        headers = {"content-security-policy": _POLICY}
        return Response(_PAGE, media_type="text/html", headers=headers)

    @routes.get("/docs/assets/{name}", response_model=None)
    async def asset(name: str) -> Response:
        """Return one of the page's own files."""
        if name not in assets:
            raise HTTPException(404)
        content, media_type = assets[name]
        return Response(content, media_type=media_type, headers=_CACHED)

    return routes


def _assets() -> Mapping[str, tuple[bytes, str]]:
    """Return content and media type by name: Swagger UI from its package, and what starts it."""
    packaged = files("fastapi_offline") / "static"
    found = {name: ((packaged / name).read_bytes(), kind) for name, kind in _PACKAGED.items()}
    return {**found, "start.js": (_START, "text/javascript")}
