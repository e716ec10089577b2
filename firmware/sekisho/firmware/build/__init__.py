"""The centre's side of releases: bundles are built from a commit, the same bytes each time, and signed off line.

Runs where the source and the keys are, never on a box.
"""
