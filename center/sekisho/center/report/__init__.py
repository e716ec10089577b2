"""The monthly report: what was watched, blocked and important, told so that it can be proven later.

`tally` counts as events are stored; `figures` makes a month's figures of it, and nothing else is ever in a report;
`advice` is what follows from them, pure; `press` turns a page into a PDF in a process of its own; `proofs` issues a
report: figures and PDF are kept as they were handed out, bound by a signature that anybody can check.
"""
