"""Where the next page begins, as an opaque word: it names a place in an order, and opens nothing by itself."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, TypeVar

import msgspec
from litestar.exceptions import NotFoundException
from litestar.params import QueryParameter

LIMIT: Final = 50
LIMIT_CAP: Final = 500
CURSOR_CAP: Final = 800

Word = Annotated[str, msgspec.Meta(max_length=160, pattern=r"^[ -~]*\Z")]
"""A text inside of a place."""
Number = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
P = TypeVar("P", bound=msgspec.Struct)

Limit = Annotated[int, QueryParameter(ge=1, le=LIMIT_CAP, description="How many at most. 最大件数")]
Cursor = Annotated[
    str,
    QueryParameter(
        max_length=CURSOR_CAP,
        pattern=r"^[A-Za-z0-9_-]*$",
        description="The `next` of the page before; filters must be the same. 前のページの next",
    ),
]


def mark(place: msgspec.Struct) -> str:
    """The word for a place."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def place(cursor: str, of: type[P]) -> P | None:
    """The place behind the word; None at the beginning.

    Raises:
        NotFoundException: there is no such page.

    """
    if not cursor:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=of)
    except (binascii.Error, ValueError, msgspec.DecodeError) as err:
        raise NotFoundException() from err
