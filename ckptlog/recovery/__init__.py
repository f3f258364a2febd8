"""Recovery: what was captured, brought back whole or not at all."""
