"""The OpenAPI document, made from the route table, and the page that shows it."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from swagger_ui_bundle import swagger_ui_path

from llm_gate import __version__
from llm_gate.domain.errors import NotFound
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.routes import Route, Surface

_REFERENCE = "#/components/schemas/{name}"
_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="{docs}/assets/swagger-ui.css">
<link rel="icon" type="image/png" href="{docs}/assets/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{docs}/assets/swagger-ui-bundle.js"></script>
<script src="{docs}/assets/start.js"></script>
</body>
</html>
"""
_START = 'SwaggerUIBundle({{url: "{document}", dom_id: "#swagger-ui", deepLinking: true}});\n'
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def openapi_document(
    routes: Sequence[Route], *, title: str, description: str, needs_key: bool
) -> dict[str, Any]:
    """Describe the routes as an OpenAPI 3.0 document."""
    shown = [route for route in routes if route.documented]
    types = [
        kind
        for route in shown
        for kind in (route.request_type, route.response_type, route.error_type)
        if kind is not None
    ]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type, needs_key)
    document: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {"title": title, "description": description, "version": __version__},
        "paths": paths,
        "components": {"schemas": {name: _as_3_0(schema) for name, schema in components.items()}},
    }
    if needs_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A repeat with the same key and body gets the first answer and costs nothing more, for 24 hours",
    "required": False,
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def _operation(route: Route, schemas: dict[int, Any], needs_key: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.tag],
        "operationId": f"{route.method.lower()}{''.join(c if c.isalnum() else '_' for c in route.path)}",
        "responses": _responses(route, schemas),
    }
    if route.parameters or route.operation is not None:
        operation["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "description": parameter.description,
                "required": parameter.required,
                "schema": {"type": "string", "minLength": 1}
                | ({"format": parameter.format} if parameter.format else {}),
            }
            for parameter in route.parameters
        ]
    if route.operation is not None:
        operation["parameters"].append(_KEY)
    if route.request_type is not None:
        media: dict[str, Any] = {"schema": _as_3_0(schemas[id(route.request_type)])}
        if route.example is not None:
            media["example"] = route.example
        operation["requestBody"] = {"required": True, "content": {"application/json": media}}
    if route.form:
        properties = {
            name: {"type": "string", **({"format": "binary"} if kind == "file" else {})}
            for name, kind in route.form.items()
        }
        form = {"schema": {"type": "object", "properties": properties}}
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": form}}
    if needs_key and route.policy == "caller":
        operation["security"] = [{"key": []}]
    return operation


def _responses(route: Route, schemas: dict[int, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.content is not None:
        content[route.content] = {"schema": {"type": "string", "format": "binary"}}
    if route.response_type is not None and route.stream != "always":
        content["application/json"] = {"schema": _as_3_0(schemas[id(route.response_type)])}
    if route.stream != "never":
        content["text/event-stream"] = {}  # OpenAPI 3.0 has no words for events
    responses: dict[str, Any] = {str(route.success): {"description": "The answer", "content": content}}
    if route.error_type is not None:
        error = {"application/json": {"schema": _as_3_0(schemas[id(route.error_type)])}}
        responses["4XX"] = {"description": "Something must be changed in the request", "content": error}
        responses["5XX"] = {"description": "The provider or the gateway failed", "content": error}
    return responses


def _as_3_0(schema: Any) -> Any:
    """Rewrite what JSON Schema 2020-12 says and OpenAPI 3.0 cannot: null among the types, and constants."""
    if isinstance(schema, list):
        return [_as_3_0(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    if "const" in rest:
        rest["enum"] = [rest.pop("const")]
    members = rest.pop("anyOf", None)
    if members is None:
        if None in rest.get("enum", ()):
            rest["enum"] = [value for value in rest["enum"] if value is not None]
            rest["nullable"] = True
        return {key: _as_3_0(value) for key, value in rest.items()}
    kept = [_as_3_0(member) for member in members if member != {"type": "null"}]
    merged: dict[str, Any] = {key: _as_3_0(value) for key, value in rest.items()}
    if len(kept) == 1 and "$ref" not in kept[0]:
        merged |= kept[0]
    else:
        merged["anyOf"] = kept
    if len(kept) < len(members):
        merged["nullable"] = True
    return merged


class DocumentationRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of the document and its page; the page's assets come from this server."""

    surface: Surface
    api_path: str
    title: str
    document: bytes

    async def page(self, exchange: Exchange) -> None:
        """Show the page."""
        body = _PAGE.format(title=_escaped(self.title), docs=f"{self.api_path}/docs").encode()
        headers = {"content-security-policy": _POLICY}
        await exchange.reply(Reply(body=body, content_type="text/html; charset=utf-8", headers=headers))

    async def openapi(self, exchange: Exchange) -> None:
        """Send the document."""
        await exchange.reply(Reply(body=self.document))

    async def asset(self, exchange: Exchange) -> None:
        """Send a file of the page."""
        name = exchange.path_value
        if name == "start.js":
            script = _START.format(document=f"{self.api_path}/openapi.json").encode()
            await exchange.reply(Reply(body=script, content_type="text/javascript"))
            return
        if name not in _ASSETS:
            raise NotFound("there is no such file")
        body = (Path(swagger_ui_path) / name).read_bytes()
        headers = {"cache-control": "max-age=86400"}
        await exchange.reply(Reply(body=body, content_type=_ASSETS[name], headers=headers))

    def routes(self) -> list[Route]:
        """Return the rows."""
        return [
            Route(
                method="GET",
                path=path,
                endpoint=endpoint,
                surface=self.surface,
                summary=summary,
                tag="Documentation",
                documented=False,
            )
            for path, endpoint, summary in (
                (f"{self.api_path}/docs", self.page, "This documentation as a page"),
                (f"{self.api_path}/openapi.json", self.openapi, "This documentation as a document"),
                (f"{self.api_path}/docs/assets/{{name}}", self.asset, "Files of the page"),
            )
        ]


def _escaped(text: str) -> str:
    return html.escape(text)
