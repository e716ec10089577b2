"""Rule sets: read, proved by the real engines, switched in one step, and the last good one kept.

`compiler.ensure` is what daemons call at start; the directory it names holds `suricata.rules`,
`yara.compiled` and `set.json`. This room never talks to the running engine: loading is the
appliance's and inspect's work, told by `SetInfo.path`.
"""
