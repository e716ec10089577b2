"""Keeps the box's published set: fetches, proves, switches, watches, and goes back by itself.

`machine` decides (pure: events in, commands out), `journal` remembers durably, `runner` joins them to `effects`, which
does the work with `download`, `stage`, `prove` and `news`. Nothing here talks to an inspection engine: the `current`
link is the order, and what the inspectors write about themselves (`core.standing`) is the only answer believed.
"""
