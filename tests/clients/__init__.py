"""Real clients, as their users install them, against a server on this machine."""
