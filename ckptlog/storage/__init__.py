"""The outside world: clock, random, files, locks. OSError crosses into our tree here."""
