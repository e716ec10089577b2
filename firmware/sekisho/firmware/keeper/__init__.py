"""Keeps the box's own software: fetches a release, stages it, waits for a word, tries it, keeps it or goes back.

`machine` decides (pure: events in, commands out), `journal` remembers durably, `runner` joins them to `effects`. What
is staged changes nothing at a power cut; only a `Choice` that somebody made leads out of there.
"""
