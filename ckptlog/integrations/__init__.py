"""Readers of other people's files: the old one-file-per-checkpoint layout, agent transcripts."""
