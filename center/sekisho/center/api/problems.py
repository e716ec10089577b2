"""What the API says when it refuses: problem details (RFC 9457), without inner detail."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, TooManyRequestsException, ValidationException
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from sekisho.appliance.core.errors import DeviceFault

MEDIA_TYPE: Final = "application/problem+json"
RETRY_S: Final = 5
"""After which a centre that cannot answer may be asked again."""
_SAID: Final[dict[int, tuple[str, str]]] = {
    400: (
        "Bad request",
        "A field or value is not known to this operation. 形式が正しくありません。",
    ),
    403: ("Forbidden", "This certificate may not do that. この証明書では利用できません。"),
    404: (
        "Not found",
        "There is nothing here that this certificate may see. 見つからないか、閲覧できる範囲にありません。",
    ),
    405: ("Method not allowed", "This resource does not know the method. このメソッドは使えません。"),
    410: ("Gone", "This version of the API has ended. このバージョンの提供は終わりました。"),
    413: ("Content too large", "The body is larger than this API takes. 本文が大きすぎます。"),
    415: ("Unsupported media type", "The body must be application/json. 本文は JSON で送ってください。"),
    429: ("Too many requests", "Wait as many seconds as Retry-After says. しばらく待ってから送り直してください。"),
    500: ("Internal error", "The centre has noted the fault. 見守りセンターで記録しました。"),
    503: ("Not available", "The centre cannot answer now. ただいま応答できません。"),
}

log = logging.getLogger(__name__)


class Field(msgspec.Struct, frozen=True):
    """One field that was not understood."""

    name: str
    why: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refusal."""

    title: str
    status: int
    detail: str
    fields: list[Field] = []


def responses(*also: int) -> dict[int, ResponseSpec]:
    """What any operation may answer beside what it is for, as the API's document tells it."""
    return {
        status: ResponseSpec(Problem, generate_examples=False, description=_SAID[status][0], media_type=MEDIA_TYPE)
        for status in (400, 403, 404, 410, 429, 503, *also)
    }


def refuse(status: int, fields: list[Field] | None = None, headers: dict[str, str] | None = None) -> Response[bytes]:
    """The answer of a refusal."""
    known = status if status in _SAID else 400 if status < 500 else 500
    problem = Problem(_SAID[known][0], known, _SAID[known][1], fields or [])
    return Response(msgspec.json.encode(problem), status_code=known, media_type=MEDIA_TYPE, headers=headers or {})


def refused(request: Request[Any, Any, Any], err: HTTPException) -> Response[bytes]:
    """A refusal that was raised."""
    kept = {k: v for k, v in (err.headers or {}).items() if k.lower() in ("allow", "retry-after")}
    return refuse(err.status_code, _fields(request, err) if isinstance(err, ValidationException) else [], kept)


def failed(_request: Request[Any, Any, Any], err: Exception) -> Response[bytes]:
    """A fault of ours."""
    if isinstance(err, DeviceFault):
        log.error("the API cannot answer: %s", err)
        return refuse(503, headers={"retry-after": str(RETRY_S)})
    if isinstance(err, RecursionError):  # a body of brackets: the decoder's own depth cap
        return refuse(400)
    log.error("the API failed", exc_info=err)
    return refuse(500)


def too_many(wait_s: int) -> TooManyRequestsException:
    return TooManyRequestsException(headers={"retry-after": str(wait_s)})


def unknown(*names: str) -> ValidationException:
    """These fields are none of this operation's."""
    return ValidationException(extra=[{"key": name, "message": "not known here"} for name in names])


def names(handler: BaseRouteHandler) -> dict[str, str]:
    """What a handler calls its parameters -> what the API calls them."""
    fields = handler.parsed_fn_signature.parameters.items()
    return {name: getattr(field.kwarg_definition, "name", None) or name for name, field in fields}


def _fields(request: Request[Any, Any, Any], err: ValidationException) -> list[Field]:
    extra = err.extra if isinstance(err.extra, list) else []
    known = names(request.route_handler)
    found = [(str(one.get("key", "")), str(one.get("message", ""))) for one in extra[:20]]
    return [Field(known.get(name, name)[:80], why[:200]) for name, why in found]
