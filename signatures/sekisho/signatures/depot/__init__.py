"""The centre's TUF repository: keys, signed roles, published sets, and how a plain web server hands them out.

Runs where the keys are, never on a box. What boxes believe of it is `trust`'s; what is in a set is `press`'s.
"""
