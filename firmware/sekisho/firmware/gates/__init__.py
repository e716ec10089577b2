"""What must work with a new release: everything that worked just before it, and nothing more.

`eyes` looks, `judge` compares. Each gate has a name the centre hears of when it is the reason to go back.
"""
