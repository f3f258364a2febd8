"""The command line: it stands on top, and each command imports what it needs when called."""
