"""The box as a member of a centre: its certificate got once with a code, renewed by itself, kept in one file."""
