"""The kernel's table of connections, as far as refusals change it."""

from __future__ import annotations

import logging
import socket
from typing import Self

from pyroute2 import NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

from sekisho.appliance.answers import TCP, Talk

log = logging.getLogger(__name__)


class Table:
    """One netlink socket; as a context manager it is closed at the end."""

    def __init__(self) -> None:
        self._socket = NFCTSocket()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def forget(self, talk: Talk) -> None:
        """Take a refused connection out."""
        family = socket.AF_INET6 if ":" in talk.src else socket.AF_INET
        ends = NFCTAttrTuple(
            family=family, saddr=talk.src, daddr=talk.dst, proto=TCP, sport=talk.src_port, dport=talk.dst_port
        )
        try:
            self._socket.entry("del", nfgen_family=family, tuple_orig=ends)
        except NetlinkError as err:
            log.debug("a refused connection is not in the table: %s", err)
