"""The box's operating system, built: one recipe, one `Board` per kind of machine (docs/image.md, docs/decisions/0036).

`boards` is what differs between machines, `layout` the disk all of them have, `texts` the files made for one image,
`debian` the root tree, `programs` our own programs in it, `slot` the two signed file systems of a slot, `bundle` what
RAUC installs, `disk` the disk of a new box. `build` joins them (`python -m sekisho.firmware.image.build`), `qemu` runs
the result. Nothing here runs on a box.
"""
