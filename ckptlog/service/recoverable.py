"""The calls of a service that bring its system back, and those that end an interrupted recovery."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ckptlog.errors import ArgumentError
from ckptlog.service.engine import Engine

if TYPE_CHECKING:
    from ckptlog.recovery.progress import RecoveryProgress
    from ckptlog.recovery.request import Cancel, Request

OnPicture = Callable[["RecoveryProgress"], object]


class Recoverable(ABC):
    """What a service offers of recoveries; it gives the engine that does them."""

    @abstractmethod
    def _ready(self, *, is_reading: bool = False) -> Engine:
        """Return the engine, or raise where there is none."""

    def recover_from_checkpoint(
        self,
        checkpoint_id: str | None = None,
        components: Iterable[str] | None = None,
        partial: bool = False,  # noqa: FBT001, FBT002 - the specification's signature
        dry_run: bool = False,  # noqa: FBT001, FBT002 - same
        *,
        at: datetime | int | None = None,
        to: str | os.PathLike[str] | None = None,
        on_progress: OnPicture | None = None,
        cancel: Cancel | None = None,
        verify: bool = True,
        safety: bool = True,
    ) -> RecoveryProgress:
        """Bring the system back to a capture; the newest one by default.

        No capture is taken meanwhile, but the recovery's own, of the state before.

        Args:
            components: Only these.
            partial: Those that the capture and the system have in common; otherwise each must be
                on both sides.
            dry_run: Change nothing and tell what would be; errors are told, not raised.
            at: The newest capture not after this time or position.
            to: A directory: restore there, and leave the system as it is.
            on_progress: Called with each picture, in this thread or a component's; what it calls of
                the service that would wait for the recovery is refused (ServiceBusyError).
            cancel: Asked between components, and whenever one reads; what was touched is put back.
            verify: Compare what was restored.
            safety: Save what is there first. Without it nothing can be put back.

        Raises:
            ArgumentError, CheckpointNotFoundError: The call is wrong; nothing was begun or told.
            RecoveryFailedError: A component failed; what was touched was rolled back.
            RecoveryIncompleteError: And that failed too: nothing is captured until
                `resume_recovery` or `roll_back_recovery` has succeeded.
            RecoveryUnfinishedError: That is so already.
            CheckpointError: As `Recovery.recover`.
        """
        from ckptlog.service.recovering import recover

        asked = self._request(
            capture_id=checkpoint_id,
            components=components,
            partial=partial,
            dry_run=dry_run,
            at=at,
            to=to,
            on_progress=on_progress,
            cancel=cancel,
            verify=verify,
            safety=safety,
        )
        return recover(self._ready(), asked)

    def iterate_recovery(
        self,
        checkpoint_id: str | None = None,
        components: Iterable[str] | None = None,
        **options: Any,
    ) -> Generator[RecoveryProgress, None, None]:
        """Recover, and yield each picture; what the recovery raises is raised at the end.

            for picture in service.iterate_recovery(dry_run=True):
                print(picture.percent, picture.component)

        Whoever stops iterating cancels the recovery, and waits for the rollback.

        Args:
            options: As `recover_from_checkpoint`, but on_progress.

        Raises:
            ArgumentError: The call is wrong; at once.
        """
        from ckptlog.recovery.pictures import iterated
        from ckptlog.service.recovering import recover

        asked = self._request(capture_id=checkpoint_id, components=components, **options)
        if asked.on_progress is not None:
            raise ArgumentError(
                "An iterator has no on_progress.",
                hint="Take the pictures from the iterator.",
                argument="on_progress",
            )
        engine = self._ready()
        return iterated(
            lambda tell, cancel: recover(engine, asked.with_watchers(tell, cancel)), asked.cancel
        )

    def resume_recovery(
        self,
        *,
        on_progress: OnPicture | None = None,
        cancel: Cancel | None = None,
        verify: bool = True,
        safety: bool = True,
    ) -> RecoveryProgress | None:
        """Finish a recovery that came to no end; None where there is none.

        What is there is captured; then all of its components are restored again, and captures go
        on. When that fails, it is rolled back.

        Args:
            safety: Capture what is there first; where that fails nothing is touched.

        Raises:
            RecoveryFailedError: It failed again, and was rolled back; captures go on.
            RecoveryIncompleteError: That failed too; nothing is captured still.
            CheckpointError: As `Recovery.resume`.
        """
        from ckptlog.service.recovering import resume

        options: dict[str, Any] = {"cancel": cancel, "verify": verify, "safety": safety}
        self._request(on_progress=on_progress, **options)
        return resume(self._ready(), on_progress=on_progress, **options)

    def roll_back_recovery(
        self, *, on_progress: OnPicture | None = None, safety: bool = True
    ) -> RecoveryProgress | None:
        """Undo a recovery that came to no end; None where there is none. Captures go on.

        Args:
            safety: As of `resume_recovery`.

        Raises:
            RecoveryIncompleteError: A component failed, the others were put back; nothing is
                captured still.
            RecoveryRefusedError: It had no safety capture.
        """
        from ckptlog.service.recovering import roll_back

        self._request(on_progress=on_progress, safety=safety)
        return roll_back(self._ready(), on_progress, safety=safety)

    def abandon_recovery(self, *, on_progress: OnPicture | None = None) -> RecoveryProgress | None:
        """Give up a recovery that came to no end; None where there is none. Captures go on.

        Nothing is restored: what was touched stays as it is (`restored`, `mixed` of the picture).
        It is the way out where the recovery can neither be finished nor undone.

        Raises:
            CheckpointError: As `Recovery.abandon`.
        """
        from ckptlog.service.recovering import abandon

        self._request(on_progress=on_progress)
        return abandon(self._ready(), on_progress)

    def _request(self, **options: Any) -> Request:
        """Return what is asked for, checked; a wrong call is counted."""
        from ckptlog.recovery.request import ServiceRequest

        engine = self._ready()
        try:
            return ServiceRequest(**options)
        except ArgumentError as error:
            engine.fail(None, error)
            raise
