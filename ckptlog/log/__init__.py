"""The log: segments of frames, one writer at a time, durable commits (specs/log.md)."""
