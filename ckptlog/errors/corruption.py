"""Stored bytes that are not what was written."""

from __future__ import annotations

from ckptlog.errors.base import CheckpointError


class CheckpointCorruptionError(CheckpointError):
    """Stored bytes are not what was written."""

    code = "corruption.detected"


class BackupDamagedError(CheckpointCorruptionError):
    """A backup is not as it was written, or has no whole state."""

    code = "backup.damaged"


class ConsumerDamagedError(CheckpointCorruptionError):
    """The file that says how far a consumer has come cannot be read."""

    code = "consumer.damaged"


class FormatError(CheckpointCorruptionError):
    """Bytes do not follow their format."""

    code = "format.malformed"


class LogCorruptionError(CheckpointCorruptionError):
    """The log is damaged at or before a position that was durable."""

    code = "log.corrupt"


class ProofError(CheckpointCorruptionError):
    """A proof does not prove what it says."""

    code = "proof.invalid"


class RewrittenError(CheckpointCorruptionError):
    """A signed head covers other events than the log has: its past was changed."""

    code = "head.rewritten"


class RolledBackError(CheckpointCorruptionError):
    """A signed head covers more events than the log has: it was cut, or set back to a backup."""

    code = "head.rolled_back"


class SignatureError(CheckpointCorruptionError):
    """A head or a cosignature is not signed by the key that it should be signed by."""

    code = "signature.invalid"


class BlobCorruptionError(CheckpointCorruptionError):
    """A chunk's bytes do not hash to its name."""

    code = "blob.corrupt"
