"""Task Master's task files: their tasks as checkpoints, checkpoints' states as their statuses."""
