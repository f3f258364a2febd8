"""Bytes to values and back, pure: no file, no clock. One page in specs/ for each format."""
