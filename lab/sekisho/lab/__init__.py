"""A small office, its box, the internet and the monitoring centre, in network namespaces on one machine.

Only what a real installation also has runs here: real servers, real clients, the product as shipped.
Used by the demo, the end-to-end tests and the benches. Imports the other rooms; none imports it.
"""
