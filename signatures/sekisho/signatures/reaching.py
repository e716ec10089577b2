"""The way of this box to the centre's signed channel, and whom it believes there, as its settings say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.signatures.trust import Limits, Source, Trust, Web

_ROOT_CAP: Final = 1 << 20


def reach(settings: Settings, limits: Limits = Limits()) -> Web:  # noqa: B008 - frozen
    """The channel's server; nothing is sent yet.

    Raises:
        RejectedInput: no channel is configured, or its address or certificates cannot be used.

    """
    wanted = settings.signatures
    if not wanted.channel:
        raise RejectedInput("No channel is configured.", "Name it in [signatures] of the settings.")
    telemetry = settings.telemetry
    # Shown to a server that asks who it is; what comes is believed for its own signatures, with it or without.
    pair = (telemetry.cert, telemetry.key)
    cert, key = pair if all(path and os.access(path, os.R_OK) for path in pair) else ("", "")
    ca = wanted.channel_ca or telemetry.ca
    if ca and not os.access(ca, os.R_OK):  # beside the box's own key, which is telemetry's alone
        ca = str(settings.authority)
    return Web(wanted.channel, ca=ca, cert=cert, key=key, proxy=telemetry.proxy, limits=limits)


def believe(settings: Settings, directory: Path, source: Source) -> Trust:
    """What this box believes of the channel; floors and metadata are kept in `directory`, which one process has.

    Raises:
        DeviceFault: the root it came with is not there, or what it kept is damaged.

    """
    path = Path(settings.signatures.root)
    try:
        with path.open("rb") as opened:
            root = opened.read(_ROOT_CAP)
    except OSError as err:
        raise DeviceFault(f"{path}: {err.strerror}.", "It names whom this box believes; set it up again.") from err
    return Trust(directory, root, source)
