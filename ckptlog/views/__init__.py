"""Views of the log: projections that can be thrown away and rebuilt, and are never the truth."""
