"""/docs and /redoc from assets the service ships: they work without internet and make no request to anybody else."""

import json
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

STATIC: Final = Path(__file__).parent / "static"
PREFIX: Final = "/static"
OPENAPI: Final = "/openapi.json"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; frame-ancestors 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:"
    ),
}

router = APIRouter(include_in_schema=False)
static_files = StaticFiles(directory=STATIC)


@router.get("/docs")
async def show_docs(request: Request) -> HTMLResponse:
    """Swagger UI over this service's own OpenAPI document."""
    root = request.scope.get("root_path", "")
    options = {
        "url": f"{root}{OPENAPI}",
        "dom_id": "#swagger-ui",
        "deepLinking": True,
        "persistAuthorization": True,
        "displayRequestDuration": True,
        "defaultModelsExpandDepth": 0,
        "docExpansion": "list",
        "validatorUrl": None,
    }
    if getattr(request.app.state, "is_read_only", False):  # the API is on another port, where this page may not reach
        options["supportedSubmitMethods"] = []
    body = f"""<div id="swagger-ui"></div>
<script src="{root}{PREFIX}/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({json.dumps(options)})</script>"""
    return _page(root, "API", body, f'<link rel="stylesheet" href="{root}{PREFIX}/swagger-ui.css">')


@router.get("/redoc")
async def show_redoc(request: Request) -> HTMLResponse:
    """ReDoc over the same document."""
    root = request.scope.get("root_path", "")
    body = f"""<div id="redoc"></div>
<script src="{root}{PREFIX}/redoc.standalone.js"></script>
<script>Redoc.init({json.dumps(f"{root}{OPENAPI}")}, {{disableSearch: true}}, document.getElementById("redoc"))</script>"""
    return _page(root, "API reference", body)


def _page(root: str, title: str, body: str, head: str = "") -> HTMLResponse:
    return HTMLResponse(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>SaaSBase Server - {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="{root}{PREFIX}/favicon.png">{head}</head>
<body style="margin:0">{body}</body></html>""",
        headers=_HEADERS,
    )
