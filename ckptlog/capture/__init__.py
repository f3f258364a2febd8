"""Captures: the components of a running system, saved together at one moment."""
