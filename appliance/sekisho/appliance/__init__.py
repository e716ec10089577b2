"""Bridge, rules, engine life cycle, bypass watchdog, inventory: everything that needs root on the box."""
