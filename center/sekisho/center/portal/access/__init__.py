"""How people get in: passwords, one-time codes, passkeys, links by mail, and the brakes on guessing."""
