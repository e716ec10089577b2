"""What the centre's operators asked of this box: checked, remembered, carried out once, reported truthfully.

`trust` opens what telemetry left in the inbox, `machine` decides (pure: events in, commands out), `book` remembers
durably, `runner` joins them to `desks`, which ask the daemons concerned. Nothing here has a network, and no kind runs
a command of the sender's. A broker that repeats, withholds, reorders or invents messages changes nothing but when.
"""
