"""The API's own document (OpenAPI 3.1): made from the routes, so that it says what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar import Litestar, Response, Router, get
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

MEDIA_TYPE: Final = "application/vnd.oai.openapi+json"
DESCRIPTION: Final = """\
セキュリティ見守りサービスの提携先向け API です。接続にはお互いの証明書（mTLS）が必要です。
見られるのは、担当するお客様の情報と、役割で認められた操作だけです。

The API for partners of the monitoring service. Both sides show a certificate (mutual TLS). A partner sees the customers
it looks after and may do what its role may do in the portal. Lists have a `next`: give it as `cursor` for the page
after. Times are UTC (RFC 3339). Refusals are problem details (RFC 9457). A version lives until a year after its
successor came; from then on its answers carry `Deprecation` (RFC 9745) and `Sunset` (RFC 8594).
"""


def describe(routers: Sequence[Router], version: str) -> dict[str, Any]:
    """The document of these routes."""
    config = OpenAPIConfig(
        title="sekisho partner API",
        version=version,
        description=DESCRIPTION,
        use_handler_docstrings=True,
        render_plugins=[JsonRenderPlugin()],
    )
    made = Litestar(routers, openapi_config=config, logging_config=None).openapi_schema.to_schema()
    for operation in (operation for path in made["paths"].values() for operation in path.values()):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _given(parameter["schema"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content["schema"]["$ref"].rpartition("/")[2]
            made["components"]["schemas"][name]["additionalProperties"] = False
    return made


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is there has a value: in a query, "null" would be a text."""
    kept = dict(schema)
    for one in kept.pop("oneOf", ()):
        kept |= one if one != {"type": "null"} else {}
    if isinstance(kept.get("type"), list):
        (kept["type"],) = (kind for kind in kept["type"] if kind != "null")
    if "enum" in kept:
        kept["enum"] = [value for value in kept["enum"] if value is not None]
    return kept


def table(described: dict[str, Any]) -> str:
    """The routes as a table in Markdown, for docs/api.md."""
    lines = ["| route | what | 内容 |", "|---|---|---|"]
    for path, operations in sorted(described["paths"].items()):
        for method, operation in operations.items():
            first = operation["description"].partition("\n")[0]
            lines.append(f"| `{method.upper()} {path}` | {first} | {operation['summary']} |")
    return "\n".join(lines)


def router(described: dict[str, Any]) -> Router:
    """/openapi.json."""
    body = msgspec.json.encode(described)

    @get("/openapi.json", right="public", media_type=MEDIA_TYPE)
    async def document() -> Response[bytes]:
        return Response(body, media_type=MEDIA_TYPE)

    return Router("/", route_handlers=[document])
