"""One module per protocol: what objects one direction of a TCP stream carries. Runs in scan workers only.

Each offers `objects(stream, peer, *, limit)` (see `found.Splitter`). What is reported is only ever
*scanned*, so where a reader could see content, content is reported; what no two readers would agree on
carries `trouble`, and policy decides (`on_unparsable`).
"""
