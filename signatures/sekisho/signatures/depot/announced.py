"""`published.json`: the hint from which the newest set's number is announced to boxes; what is signed decides."""

from __future__ import annotations

import datetime as dt

import msgspec

from sekisho.appliance.core import utc
from sekisho.signatures.depot.tree import Chain, Published, Tree


def tell(tree: Tree, chain: Chain, now: dt.datetime) -> Published:
    """Make the hint say what is in force; it is left alone when it does, so also after a crash before it was written.

    Raises:
        DeviceFault: the disk refuses it.

    """
    manifest = tree.manifest(chain)
    number = manifest.number if manifest else 0
    path = tree.directory / "published.json"
    try:
        told = msgspec.json.decode(path.read_bytes(), type=Published)
        if told.number == number:
            return told
    except (OSError, msgspec.DecodeError):
        pass
    told = Published(number, utc.text(now))
    tree.put(path, msgspec.json.encode(told))
    return told
