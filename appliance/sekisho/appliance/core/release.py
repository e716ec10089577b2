"""Which release of the product this process runs, and keeps to while it lives.

On a box `/opt/sekisho/venv` is a link to the environment of one release (docs/decisions/0035). A program started
through it would find the next release's modules, and give its workers the next release's interpreter, as soon as the
link moves: `pin` has it keep to what it was started from.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"[0-9]{1,16}-[0-9a-f]{8,64}")


def pin() -> None:
    """Name the environment by its own path wherever this process names it by the link's; call it before all imports."""
    link, real = sys.prefix, str(Path(sys.prefix).resolve())
    if link == real:
        return

    def own(path: str) -> str:
        return real + path.removeprefix(link) if path.startswith(f"{link}/") else path

    sys.prefix = sys.exec_prefix = real
    sys.executable = own(sys.executable)
    sys.path[:] = [own(path) for path in sys.path]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "sekisho" and isinstance(getattr(module, "__path__", None), list):
            module.__path__ = [own(path) for path in module.__path__]


def home() -> Path:
    """The folder of this process's release; of a process that runs from no release, what its environment lies in."""
    return Path(sys.prefix).parent


def name() -> str:
    """The release's name (CTR-SHA); empty where this process runs from none."""
    found = home().name
    return found if _NAME.fullmatch(found) else ""
