"""Puts one release's programs in the place of another's while packets pass; docs/firmware-switch.md.

`switching` moves the link and renews one daemon after the other, has the release stay, or takes everything back;
`services` is whoever runs the daemons; `healthy` is each daemon's own word.
"""

from sekisho.firmware.switch.switching import settle, switch

__all__ = ["settle", "switch"]
