"""A contract's life: applied for, in force, ended, its data handed out and then deleted so that it can be shown."""
