"""The figures the product promises, taken as ratios within one run, on the lab everybody else uses.

Absolute numbers of a machine mean nothing here: each is compared with the bare bridge or with the
packaged Suricata configuration, measured in turn (A B A B) in the same minutes.
"""
