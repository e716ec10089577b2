"""What a browser sends to change something: it must come from our own page, and carry that page's token.

Three lines of defence against a page of somebody else that makes a browser act (CSRF): the session's cookie is
SameSite, the Origin header must be ours where the browser sends one, and the form carries the session's token.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Any, Final
from urllib.parse import unquote

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import RequestEncodingType
from litestar.exceptions import ClientException, PermissionDeniedException
from litestar.params import Body

from sekisho.center.portal.viewer import Viewer

Fields = Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]
"""A form as a handler takes it (`data: Fields`); a field that comes twice is refused."""

FIELD: Final = "csrf"
HEADER: Final = "x-csrf"


async def check_origin(connection: ASGIConnection[Any, Any, Any, Any], origin: str) -> None:
    """Refuse what another site's page sends.

    Raises:
        PermissionDeniedException: it says that it comes from elsewhere.

    """
    came_from = connection.headers.get("origin")
    if came_from is not None and came_from != origin:
        raise PermissionDeniedException()
    if connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise PermissionDeniedException()


async def check_text(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Refuse what no person types and no database need hold: a NUL in the address or in a form.

    Raises:
        ClientException: there is one.

    """
    texts = [connection.url.path, *(value for _, value in connection.query_params.multi_items())]
    kind = connection.headers.get("content-type", "")
    if isinstance(connection, Request) and kind.startswith(str(RequestEncodingType.URL_ENCODED.value)):
        texts += [str(value) for _, value in (await connection.form()).multi_items()]
    if any("\0" in unquote(text) for text in texts):
        raise ClientException()


async def check_token(connection: ASGIConnection[Any, Any, Any, Any], who: Viewer) -> None:
    """Refuse a form that this session's pages did not make.

    Raises:
        PermissionDeniedException: the token is missing or another session's.

    """
    sent = connection.headers.get(HEADER, "")
    if not sent and isinstance(connection, Request):
        sent = str((await connection.form()).get(FIELD, ""))
    if not hmac.compare_digest(sent.encode(), who.csrf.encode()):
        raise PermissionDeniedException()
