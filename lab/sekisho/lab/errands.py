"""The lab's sekisho-firmware_errands.path and .service: one process of root's for each wish of the firmware daemon.

As on a box it runs from the release in use, and while that is on trial from the one before; the daemons it renews are
the lab's supervisor's.
Started by the supervisor: `python -m sekisho.lab.errands LAB`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from sekisho.appliance.core.sdnotify import notify
from sekisho.appliance.core.settings import load
from sekisho.firmware import errands, wishes
from sekisho.lab.lab import Lab
from sekisho.lab.switching import Supervised

LOOK_S: Final = 0.05
ONE: Final = "--one"
_RAUC: Final = """\
#!/bin/sh
# The two slots of a machine that never starts anew: what is asked of them is done, and A runs.
[ "$1 $2" = "status --detailed" ] || exit 0
echo '{"compatible": "lab", "booted": "A", "boot_primary": "a", "slots": [
  {"a": {"state": "booted", "bootname": "A", "boot_status": "good"}}, {"b": {"state": "inactive", "bootname": "B"}}]}'
"""


def main(argv: list[str]) -> int:
    """Wait for wishes until killed; with `ONE`, carry out the one that is there."""
    lab = Lab(argv[0])
    if ONE in argv:
        return errands.main(["--settings", str(lab.lay.box_settings)], Supervised(lab))
    settings = load(lab.lay.box_settings)
    slots = lab.lay.opt / "bin" / "rauc"
    slots.parent.mkdir(exist_ok=True)
    slots.write_text(_RAUC)
    slots.chmod(0o755)
    env = os.environ | {"PATH": f"{slots.parent}:{os.environ['PATH']}"}
    link = Path(settings.firmware.link)
    notify("READY=1")
    while True:
        if wishes.wish_file(settings).exists():
            former = link.with_name(f"{link.name}.former")
            python = (former if former.exists() else link) / "bin" / "python"
            subprocess.run([python, "-I", "-m", "sekisho.lab.errands", lab.lay.name, ONE], check=False, env=env)
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
