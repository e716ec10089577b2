"""The hashes of files found malicious, as inspect hands them to appliance: one JSON file, replaced whole.

Hashes, sizes and rule names only. They hold for one signature set: what another set calls malicious is for that set
to find again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput

MAX_FILES: Final = 4096
"""The newest are kept."""
MAX_BYTES: Final = 8 << 20
HASH: Final = 32
"""Bytes of a SHA-256 as the sorted lists hold it."""
BY_FLEET: Final = "known_by_fleet"
"""Told in the place of the rules of a file that only the fleet's list knows."""


class KnownFile(msgspec.Struct, frozen=True):
    """One malicious file."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=1)]
    rules: list[str] = []


class KnownFiles(msgspec.Struct, frozen=True):
    """What was found under one set, oldest first."""

    set_id: str = ""
    files: Annotated[list[KnownFile], msgspec.Meta(max_length=MAX_FILES)] = []


def read(path: Path, set_id: str) -> list[KnownFile]:
    """The files found under this set; none where the list is of another one, or there is no list.

    Raises:
        RejectedInput: it is no such list, or larger than its cap.

    """
    try:
        with path.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
        known = msgspec.json.decode(data, type=KnownFiles)
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise RejectedInput(f"The list of known files {path} cannot be read: {err}.") from err
    return known.files if known.set_id == set_id else []
