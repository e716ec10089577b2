"""The page's rooms: each a module with its handlers in `HANDLERS`."""
