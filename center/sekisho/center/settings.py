"""The centre's settings: one strict TOML file; an unknown key or a wrong type is an error that names it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from sekisho.appliance.core.errors import RejectedInput

MAX_SETTINGS_BYTES = 64 << 10
DEFAULT_STORE = "/var/lib/sekisho-center/events.db"


class BrokerLink(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the centre reaches the broker; its certificate's CN is its client id."""

    host: str
    ca: str
    cert: str
    key: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    client: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "center"


class CenterSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Everything the first cut of the centre needs."""

    broker: BrokerLink
    store: str = DEFAULT_STORE


def load(path: Path) -> CenterSettings:
    """Settings from a TOML file of at most `MAX_SETTINGS_BYTES`.

    Raises:
        RejectedInput: unreadable, too large, not TOML, an unknown key or a wrong type; the message names it.

    """
    try:
        with path.open("rb") as source:
            data = source.read(MAX_SETTINGS_BYTES + 1)
        if len(data) > MAX_SETTINGS_BYTES:
            raise RejectedInput(f"{path}: larger than {MAX_SETTINGS_BYTES} bytes.")
        return msgspec.convert(tomllib.loads(data.decode()), CenterSettings)
    except OSError as err:
        raise RejectedInput(f"{path}: {err.strerror}.") from err
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as err:
        raise RejectedInput(f"{path}: {err}.") from err
