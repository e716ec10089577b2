"""Builds a set at the centre: sources gathered, policy applied, tried with the real engines, within a measured budget.

`recipe` says what is wanted, `gather` fetches it, `ruletext` and `policy` decide what each rule does, `yarafiles`
leaves out what YARA cannot compile, `budget` measures the engines, `corpora` replays captures, `build` makes the set
and `stored` keeps it; `diff` tells two sets apart. Nothing here runs on a box.
"""
