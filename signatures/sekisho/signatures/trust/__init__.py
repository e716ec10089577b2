"""What the box believes of the signatures channel.

python-tuf judges signatures, versions and expiry; this room gives it what a box in an office needs beside: floors that
survive a power cut, a time that never goes back, files that are safe on the disk, and a way to the server that
cannot be held open, filled up or led elsewhere. Used by `signatures.keeper`, from one thread.

    Trust.refresh    read the newest metadata, judge it, raise the floors
    Trust.manifest   the newest set's manifest
    Trust.target     where a file is, how long, which hash: the caller fetches it (`web.Web.read`)
    Trust.evidence   what proves it to somebody else on this box, who judges it with `listed`

Order on the disk: floors first, then metadata, then (the keeper's) content. A cut in between loses a download.
"""

from sekisho.signatures.trust.disk import Disk
from sekisho.signatures.trust.faults import ChannelDown, ChannelRefused, ChannelUnfit
from sekisho.signatures.trust.floors import Floors
from sekisho.signatures.trust.offline import Evidence, Listed, listed
from sekisho.signatures.trust.source import Folder, Limits, Reply, Source
from sekisho.signatures.trust.trust import Seen, Target, Trust
from sekisho.signatures.trust.web import Web

__all__ = [
    "ChannelDown",
    "ChannelRefused",
    "ChannelUnfit",
    "Disk",
    "Evidence",
    "Floors",
    "Folder",
    "Limits",
    "Listed",
    "Reply",
    "Seen",
    "Source",
    "Target",
    "Trust",
    "Web",
    "listed",
]
