"""What every room shares: errors, settings, journals, marks.

Standard library and msgspec only; imports no other room.
"""

from sekisho.appliance.core import release

release.pin()
