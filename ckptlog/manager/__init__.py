"""The public face for tasks: CheckpointManager, batches, TaskCheckpointWrapper."""
