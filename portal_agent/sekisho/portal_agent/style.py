"""The page's one style sheet."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def css() -> bytes:
    return resources.files(__package__).joinpath("static/page.css").read_bytes()
