"""Says one side of a recorded conversation and gives back what it heard. Runs inside the office's namespace.

In on stdin: JSON {host, port, turns: [[base64 to send, bytes to wait for], ...]}; out: base64 of what came, a line a
turn. A turn ends early when the peer closes, resets or says nothing for some seconds.
"""

from __future__ import annotations

import base64
import json
import socket
import sys

SILENCE_S = 5


def main() -> None:
    task = json.load(sys.stdin)
    with socket.create_connection((task["host"], task["port"]), SILENCE_S) as link:
        for sent, awaited in task["turns"]:
            heard = b""
            try:
                link.sendall(base64.b64decode(sent))
                while len(heard) < awaited and (data := link.recv(1 << 16)):
                    heard += data
            except OSError:
                pass
            print(base64.b64encode(heard).decode(), flush=True)


if __name__ == "__main__":
    main()
