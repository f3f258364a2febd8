"""The calls of a service that capture its system, and find, read and delete what was captured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from ckptlog.errors import LeaseLostError, LeaseRequiredError
from ckptlog.manager.reading import OnDamage
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.service.engine import Engine


class Capturable(ABC):
    """What a service offers of captures; it gives the engine that does them."""

    @abstractmethod
    def _ready(self, *, is_reading: bool = False) -> Engine:
        """Return the engine, or raise where there is none."""

    @abstractmethod
    def _lost(self) -> None:
        """Find out whether another process owns the system now: a write was refused."""

    def create_checkpoint(
        self, description: str = "", tags: Iterable[str] = (), *, force: bool = False
    ) -> CaptureInfo:
        """Capture the system now, whether or not something changed.

        Args:
            tags: A list of short texts; with `keep` among them the capture is never deleted by
                itself.
            force: Also where a recovery came to no end, and what is there is a mixture.

        Raises:
            ArgumentError: The call is wrong.
            RecoveryUnfinishedError: A recovery came to no end: resume_recovery() or
                roll_back_recovery() first.
            ServiceBusyError: It was called out of another operation, by a component or by
                `on_progress`; or that one took more than 660 s.
            CaptureFailedError: A component failed or was too slow; nothing was captured.
            LeaseRequiredError, LeaseLostError: Another process owns the system.
            CheckpointStorageError, QuotaError: The store refused; nothing was captured.
        """
        engine = self._ready()
        try:
            info = engine.capture("manual", description=description, tags=tags, force=force)
        except (LeaseLostError, LeaseRequiredError):
            self._lost()
            raise
        assert info is not None  # noqa: S101 - only skip_unchanged makes it None
        engine.clean_up()
        return info

    def list_checkpoints(
        self, limit: int | None = None, *, on_damage: OnDamage | None = None
    ) -> list[CaptureInfo]:
        """Return the captures that are there, newest first; payloads are not read.

        Args:
            on_damage: Called with the id of each one that cannot be read, and the error; without
                it such a one ends the call.
        """
        return self._ready().capturer.captures(limit, on_damage=on_damage)

    def get_checkpoint(self, checkpoint_id: str) -> CaptureInfo:
        """Return what is known of a capture; its payloads are not read.

        Raises:
            CheckpointNotFoundError: The system has no such capture.
        """
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        return self._ready().capturer.find(checkpoint_id)

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Delete a capture for good, also one that is pinned, kept by its tag, or damaged.

        Its room comes back with the next compaction.

        Raises:
            CheckpointNotFoundError: The system has no such capture.
            RecoveryUnfinishedError: A recovery that came to no end needs it.
            LeaseRequiredError, LeaseLostError: Another process owns the system.
        """
        try:
            self._ready().delete(checkpoint_id)
        except (LeaseLostError, LeaseRequiredError):
            self._lost()
            raise

    def pin_checkpoint(self, checkpoint_id: str) -> bool:
        """Keep a capture, whatever becomes too old or too many; False where it is pinned already.

        Raises:
            CheckpointNotFoundError: The system has no such capture.
        """
        return self._ready().manager.pin_checkpoint(self.get_checkpoint(checkpoint_id).id)

    def unpin_checkpoint(self, checkpoint_id: str) -> bool:
        """Undo `pin_checkpoint`; False where it is not pinned."""
        return self._ready().manager.unpin_checkpoint(self.get_checkpoint(checkpoint_id).id)

    def validate_checkpoint(self, checkpoint_id: str | None = None) -> list[str]:
        """Read a capture again, every byte, and return what is wrong with it; [] if nothing is.

        Its roots and its digest are compared. Nothing is changed.

        Args:
            checkpoint_id: The newest one by default.

        Raises:
            CheckpointNotFoundError: There is no such capture.
        """
        if checkpoint_id is not None:
            check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        capturer = self._ready().capturer
        return capturer.check(capturer.find(checkpoint_id))
