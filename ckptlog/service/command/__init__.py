"""A command as a checkpointed task: `ckptlog run` (specs/run.md)."""
