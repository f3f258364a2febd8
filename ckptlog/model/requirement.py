"""The performance that the specification asks for, as constants that benchmarks print beside."""

from __future__ import annotations

from typing import Final


class CheckpointPerformanceRequirements:
    """Limits of the specification: latency, throughput, storage, memory."""

    MAX_CHECKPOINT_CREATION_TIME_MS: Final = 100
    MAX_CHECKPOINT_UPDATE_TIME_MS: Final = 50
    MAX_CHECKPOINT_QUERY_TIME_MS: Final = 10

    MIN_CHECKPOINTS_PER_SECOND: Final = 100
    MAX_CONCURRENT_CHECKPOINTS: Final = 1000

    MAX_CHECKPOINT_SIZE_MB: Final = 10
    MAX_TOTAL_STORAGE_GB: Final = 100

    MAX_MEMORY_USAGE_MB: Final = 500
    MAX_CACHE_SIZE_MB: Final = 100
