"""A box that is told one document after the other; a mark that the shim sees after each."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from sekisho.telemetry.orders import OrdersFile


def main() -> None:
    root, source = Path(sys.argv[1]), Path(sys.argv[2])
    kept = OrdersFile(root / "orders.json", source / "ca.crt", "t1", "box-1")
    with (root / "marks").open("wb", buffering=0) as marks:
        for path in sorted(source.glob("message-*")):
            kept.take(path.read_bytes(), time.time())
            marks.write(b"x")


if __name__ == "__main__":
    main()
