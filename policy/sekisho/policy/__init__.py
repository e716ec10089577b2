"""What the owner allows and refuses: one file, compiled to the engine's rules and lists and to packet rules."""
