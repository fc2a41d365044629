"""Start a server, ask it, stop it, and judge."""
