"""A restart of the machine that operators ask for: the customer says when, and it is told when all works again.

`machine` decides (pure), `keeping` journals each step before it is taken and does it. What it costs is measured here.
"""
