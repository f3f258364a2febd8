"""Orchestrators and their workers: the specification's integrations, over small protocols."""
