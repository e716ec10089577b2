"""Help from afar: somebody of the centre asks to look, the office allows it for a time, and what was looked at is told.

Looking is all there is: closed reports of the box about itself (`diagnosis`), over the box's own connection. No
shell, no file, nothing of what the office does.
"""
