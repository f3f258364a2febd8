"""Keys: the one room that signs and verifies."""
