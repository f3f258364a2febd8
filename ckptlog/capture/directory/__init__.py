"""A directory, or a git working tree, as a component of a capture (specs/capture-directory.md)."""
