"""Pure decisions: what may happen, what is kept, what is replaced. No I/O, no clock."""
