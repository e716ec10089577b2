"""The page's two files that are no pages: style sheet and icon."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

KINDS: Final = {"page.css": "text/css", "icon.svg": "image/svg+xml"}


@cache
def static(name: str) -> bytes:
    """One of `KINDS`."""
    return resources.files(__package__).joinpath(f"static/{name}").read_bytes()
