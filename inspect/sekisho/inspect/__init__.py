"""The hold: files that cross the box wait at the gate until YARA has seen them whole.

`gate.c`/`gate` hold and release packets; `hold` decides (pure); `scan` and `worker` look at bytes in
sandboxed children; `framing` finds objects in a raw response stream; `quarantine` keeps what was
stopped; `recorder` writes outcomes; `daemon` wires them; `succession` puts one process in another's place.
"""
