"""The box's own small page on the office's network: is it protected, who is there, what was stopped, what was sent.

`daemon` serves HTTPS with a certificate the box makes itself (`certificate`) and a door in plain HTTP that explains it
(`door`). `guard` lets in only the office, under the box's own address; `app` holds the routes, each with the right it
needs; `sessions`, `password` and `delays` know the owner. What lies with other daemons is asked of them (core.desk),
what only root may do is a wish in a file (`wishes`) that `errands` carries out. Works without the internet.
"""
