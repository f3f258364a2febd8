"""Pure values: ids, states, events, records, tagged values, checkpoints. No I/O, no clock."""
