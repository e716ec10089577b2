"""Cases: what becomes of an important alert, until a person has closed it.

An alert of three stars opens one by itself (`opening`); the rules of what may follow what are `steps`, pure; how long
on-site help may be had and which insurance year counts is `window`; everything that happens is written into a chained
log (`record`); `desk` loads and changes cases; `vendors` are the companies that come; `evidence` is the whole record to
take away. Nothing here calls a vendor or decides what the insurance pays.
"""
