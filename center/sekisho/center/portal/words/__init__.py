"""The portal's sentences: one TOML file for each room, read once."""

from __future__ import annotations

from functools import cache
from importlib import resources

from sekisho.center.words import Catalogue


@cache
def catalogue() -> Catalogue:
    """All of them."""
    files = resources.files(__package__).iterdir()
    return Catalogue(sorted((file for file in files if file.name.endswith(".toml")), key=lambda file: file.name))
