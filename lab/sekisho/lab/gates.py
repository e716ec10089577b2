"""What the gates of a release see on the lab's box, once a second, one JSON line each (`firmware.gates.eyes`).

In the box's namespace: `sekisho lab exec box -- python -m sekisho.lab.gates SETTINGS`. Ends with its reader.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from sekisho.appliance.core.settings import load
from sekisho.firmware.gates.eyes import Eyes

EVERY_S = 0.5


def main() -> int:
    eyes = Eyes(load(Path(sys.argv[1])))
    while True:
        try:
            sys.stdout.write(msgspec.json.encode(eyes.look()).decode() + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            return 0
        time.sleep(EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
