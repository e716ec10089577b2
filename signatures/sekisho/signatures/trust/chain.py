"""python-tuf's client for one refresh, in a scratch directory, at a time that is given to it.

The two things it has no public way for are here and nowhere else: setting the time it compares expiry with, and a
word with the caller between root and timestamp (TUF 1.0.34, 5.3.11 needs it: floors are reset there). Everything
else is its public interface. What it raises becomes one of our codes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tuf.api import exceptions
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from sekisho.appliance.core.errors import SekishoError
from sekisho.signatures.trust.faults import ChannelDown, ChannelRefused, disk_fault
from sekisho.signatures.trust.source import Source

ROLE_CAP: Final = 5_000_000
"""Bytes of any one metadata file; python-tuf's own caps are lower for each role."""
ISSUED: Final = "x_sk_issued"
"""Field of timestamp's `signed`: when it was signed (UTC, RFC 3339). TUF itself has no such date."""


class _Fetch(FetcherInterface):
    def __init__(self, source: Source) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with self._source.read(url, ROLE_CAP) as reply:
                yield from reply.chunks
        except ChannelDown as err:
            if err.status in (403, 404):  # "there is no newer root", and python-tuf must hear it in its own words
                raise exceptions.DownloadHTTPError(str(err), err.status) from err
            raise


class Chain(Updater):
    """What was verified, step by step; after a failure, as far as it went."""

    def __init__(self, scratch: Path, source: Source, root: bytes, at: Callable[[Root], float]) -> None:
        """Load the first root.

        Args:
            scratch: holds copies of what was kept; new files appear in it once they are verified.
            source: where the rest comes from.
            root: whom the box believes first.
            at: called with the newest root before anything below it is looked at: the unix time to judge expiry by.

        """
        self._at = at
        super().__init__(str(scratch), source.metadata, fetcher=_Fetch(source), bootstrap=root)

    def _load_root(self) -> None:
        super()._load_root()
        self._trusted_set.reference_time = dt.datetime.fromtimestamp(self._at(self.root), dt.UTC)

    @property
    def root(self) -> Root:
        return self._trusted_set.root

    @property
    def timestamp(self) -> Timestamp | None:
        found = self._trusted_set.get(Timestamp.type)
        return found if isinstance(found, Timestamp) else None

    @property
    def snapshot(self) -> Snapshot | None:
        found = self._trusted_set.get(Snapshot.type)
        return found if isinstance(found, Snapshot) else None

    def role(self, name: str) -> Targets | None:
        """`targets`, or a delegated role that was loaded on the way to a target."""
        found = self._trusted_set.get(name)
        return found if isinstance(found, Targets) else None

    @property
    def expires(self) -> float:
        """When the first of what was verified ends."""
        return min(float(signed.expires.timestamp()) for signed in self._trusted_set)


def issued(timestamp: Timestamp) -> float | None:
    """When it was signed, as it says itself; None where it does not, or in no usable way."""
    told = timestamp.unrecognized_fields.get(ISSUED)
    try:
        moment = dt.datetime.fromisoformat(str(told))
        return moment.timestamp() if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def translated(err: Exception) -> SekishoError:
    """One of our errors for one of python-tuf's, or of the scratch directory's."""
    match err:
        case SekishoError():
            return err
        case exceptions.ExpiredMetadataError():
            return ChannelRefused(
                "expired",
                f"What the channel offers is out of date ({err}).",
                "The rules in force go on working. If this lasts, ask whoever runs the centre.",
            )
        case exceptions.BadVersionNumberError():
            return ChannelRefused("rolled_back", f"The channel offers an older state than this box has seen ({err}).")
        case exceptions.DownloadLengthMismatchError():
            return ChannelRefused("too_large", f"The channel sends more than may be ({err}).")
        case exceptions.DownloadHTTPError():
            return ChannelDown("unreachable", f"The channel is not complete: {err}", status=err.status_code)
        case exceptions.DownloadError():
            return ChannelDown("unreachable", f"The channel cannot be read: {err}.")
        case OSError():
            return disk_fault(err, "What the channel says")
    return ChannelRefused(
        "forged",
        f"What the channel offers is not signed as it must be ({str(err)[:300]}).",
        "Nothing of it was taken. If this lasts, somebody may be interfering: ask whoever runs the centre.",
    )
