"""The portal's own files, and nothing from elsewhere: style, script, icon. Their address changes with their content."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Annotated, Final

from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter

_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@cache
def files() -> dict[str, tuple[bytes, str, str]]:
    """Name -> (content, media type, digest)."""
    found = {}
    for file in resources.files(__package__).joinpath("static").iterdir():
        kind = next((kind for ending, kind in _TYPES.items() if file.name.endswith(ending)), "")
        if kind:
            content = file.read_bytes()
            found[file.name] = (content, kind, hashlib.sha256(content).hexdigest()[:16])
    return found


def address(name: str) -> str:
    """Where a page finds the file."""
    return f"/static/{files()[name][2]}/{name}"


@get("/static/{digest:str}/{name:str}", right="public", sync_to_thread=False)
def serve(
    digest: Annotated[str, PathParameter(max_length=16)], name: Annotated[str, PathParameter(max_length=80)]
) -> Response[bytes]:
    """One file; an address of an older release is not found."""
    content, kind, current = files().get(name, (b"", "", ""))
    if not kind or digest != current:
        raise NotFoundException()
    headers = {"content-type": kind, "cache-control": "public, max-age=31536000, immutable"}
    return Response(content, headers=headers)
