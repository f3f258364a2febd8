"""AsyncCheckpointService: the same service for asyncio; no call blocks the loop.

Each call runs in a thread of the service's own: the loop's default threads stay free for components
that need them. A call that is cancelled is not waited for any more and ends by itself; but a
recovery is cancelled with it, and its end is waited for: nobody finds a system that is still being
restored behind his back. Callbacks that are coroutine functions run in the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from concurrent.futures import wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ckptlog.capture.loop_call import running_loop
from ckptlog.errors import ArgumentError
from ckptlog.manager.reading import OnDamage
from ckptlog.model.callback import refuse_deferred
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.codec import Codecs, TypeCodec
from ckptlog.model.quotation import quoted
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.recovery.request import check_watchers
from ckptlog.repository.store import Store
from ckptlog.service.alerting import Alert
from ckptlog.service.creation import (
    Configuration,
    create_checkpoint_system,
    default_dependencies,
)
from ckptlog.service.operation import Operation
from ckptlog.service.pool import Pool, Stoppable
from ckptlog.service.service import CheckpointService
from ckptlog.service.tally import ServiceMetrics

if TYPE_CHECKING:
    from ckptlog.recovery.progress import RecoveryProgress

_POLL_S: Final = 0.02
_Service = TypeVar("_Service")
_logger = logging.getLogger("ckptlog.service")


class AsyncCheckpointService:
    """A CheckpointService, awaited.

        service = AsyncCheckpointService.create(config, dependencies)
        async with service:
            info = await service.create_checkpoint("before the deployment")

    Attributes:
        sync: The service itself, for other threads.
    """

    def __init__(self, service: CheckpointService) -> None:
        self.sync = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = Pool()

    @classmethod
    def create(
        cls,
        config: Configuration | None = None,
        dependencies: object = None,
        *,
        store: Store | None = None,
        codecs: Codecs | Iterable[TypeCodec] = (),
    ) -> Self:
        """Make a service, as `create_checkpoint_system`.

        Dependencies whose get_state and set_state are coroutines run in the loop of this call, or,
        where none runs yet, in that of `initialize` or `start`.
        """
        return cls(create_checkpoint_system(config, dependencies, store=store, codecs=codecs))

    def __await__(self) -> Generator[Any, None, Self]:
        """Let `await AsyncCheckpointService.create(...)` stand, as in the specification."""
        return _at_once(self).__await__()

    @classmethod
    async def quick_start(
        cls, dependencies: object = None, *, config: Configuration | None = None
    ) -> Self:
        """Make a service and start it, as `quick_start`."""
        service = cls.create(config, default_dependencies(dependencies))
        try:
            await service.start()
        except BaseException:
            await service.close()
            raise
        return service

    @property
    def config(self) -> SystemConfiguration:
        """The settings."""
        return self.sync.config

    @property
    def state(self) -> str:
        """As `CheckpointService.state`."""
        return self.sync.state

    @property
    def current_operation(self) -> Operation | None:
        """As `CheckpointService.current_operation`."""
        return self.sync.current_operation

    @property
    def alerts(self) -> list[Alert]:
        """Alerts that are on."""
        return self.sync.alerts

    async def initialize(self) -> Self:
        """Open the store; see `CheckpointService.initialize`."""
        self._bind()
        await self._pool.call(self.sync.initialize)
        return self

    async def start(self) -> Self:
        """Own the system and capture it; see `CheckpointService.start`."""
        self._bind()
        await self._pool.call(self.sync.start, signals=False)
        self.sync.listen_to_signals()
        return self

    def _bind(self) -> None:
        """Let what belongs to a loop run in this one, where it has none yet."""
        self._loop = asyncio.get_running_loop()
        for one in self.sync.components:
            bind = getattr(one, "bind_loop", None)
            if bind is not None:
                bind(self._loop)

    async def stop(self) -> None:
        """Capture once more and give the system up; see `CheckpointService.stop`."""
        await self._pool.call(self.sync.stop)

    async def close(self) -> None:
        """Stop, and close the store; see `CheckpointService.close`."""
        await self._pool.call(self.sync.close)
        self._pool.close()

    async def pause(self) -> None:
        """Take no automatic captures until `resume`."""
        self.sync.pause()

    async def resume(self) -> None:
        """Capture again."""
        self.sync.resume()

    async def create_checkpoint(
        self, description: str = "", tags: Iterable[str] = (), *, force: bool = False
    ) -> CaptureInfo:
        """Capture the system now; see `CheckpointService.create_checkpoint`."""
        return await self._pool.call(self.sync.create_checkpoint, description, tags, force=force)

    async def list_checkpoints(
        self, limit: int | None = None, *, on_damage: OnDamage | None = None
    ) -> list[CaptureInfo]:
        """Return the captures that are there, newest first."""
        return await self._pool.call(self.sync.list_checkpoints, limit, on_damage=on_damage)

    async def get_checkpoint(self, checkpoint_id: str) -> CaptureInfo:
        """Return what is known of a capture; see `CheckpointService.get_checkpoint`."""
        return await self._pool.call(self.sync.get_checkpoint, checkpoint_id)

    async def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Delete a capture; see `CheckpointService.delete_checkpoint`."""
        await self._pool.call(self.sync.delete_checkpoint, checkpoint_id)

    async def pin_checkpoint(self, checkpoint_id: str) -> bool:
        """Keep a capture; see `CheckpointService.pin_checkpoint`."""
        return await self._pool.call(self.sync.pin_checkpoint, checkpoint_id)

    async def unpin_checkpoint(self, checkpoint_id: str) -> bool:
        """Undo `pin_checkpoint`; False where it is not pinned."""
        return await self._pool.call(self.sync.unpin_checkpoint, checkpoint_id)

    async def validate_checkpoint(self, checkpoint_id: str | None = None) -> list[str]:
        """Say what is wrong with a capture; see `CheckpointService.validate_checkpoint`."""
        return await self._pool.call(self.sync.validate_checkpoint, checkpoint_id)

    async def recover_from_checkpoint(
        self,
        checkpoint_id: str | None = None,
        components: Iterable[str] | None = None,
        partial: bool = False,  # noqa: FBT001, FBT002 - the specification's signature
        dry_run: bool = False,  # noqa: FBT001, FBT002 - same
        *,
        on_progress: Callable[[RecoveryProgress], object] | None = None,
        **options: Any,
    ) -> RecoveryProgress:
        """Bring the system back; see `CheckpointService.recover_from_checkpoint`.

        Args:
            on_progress: A function or a coroutine function; it runs in the loop, and the recovery
                waits for it.

        A task that is cancelled while it awaits this (asyncio.wait_for) cancels the recovery, and
        waits for the rollback.
        """
        return await self._pool.ended(
            self.sync.recover_from_checkpoint,
            checkpoint_id,
            components,
            partial,
            dry_run,
            on_progress=_in_loop(on_progress),
            **_stoppable(options),
        )

    async def iterate_recovery(
        self,
        checkpoint_id: str | None = None,
        components: Iterable[str] | None = None,
        **options: Any,
    ) -> AsyncIterator[RecoveryProgress]:
        """Recover, and yield each picture; see `CheckpointService.iterate_recovery`.

        Whoever closes the iterator (`contextlib.aclosing`) cancels the recovery, and waits for the
        rollback.
        """
        options = _stoppable(options)
        pictures = self.sync.iterate_recovery(checkpoint_id, components, **options)
        try:
            while (picture := await self._pool.call(next, pictures, None)) is not None:
                yield picture
        finally:
            options["cancel"].stop()
            await self._pool.ended(_close, pictures)

    async def resume_recovery(
        self,
        *,
        on_progress: Callable[[RecoveryProgress], object] | None = None,
        **options: Any,
    ) -> RecoveryProgress | None:
        """Finish a recovery that came to no end; see `CheckpointService.resume_recovery`.

        A task that is cancelled meanwhile: as `recover_from_checkpoint`.
        """
        return await self._pool.ended(
            self.sync.resume_recovery, on_progress=_in_loop(on_progress), **_stoppable(options)
        )

    async def roll_back_recovery(
        self,
        *,
        on_progress: Callable[[RecoveryProgress], object] | None = None,
        safety: bool = True,
    ) -> RecoveryProgress | None:
        """Undo a recovery that came to no end; see `CheckpointService.roll_back_recovery`."""
        return await self._pool.ended(
            self.sync.roll_back_recovery, on_progress=_in_loop(on_progress), safety=safety
        )

    async def abandon_recovery(
        self, *, on_progress: Callable[[RecoveryProgress], object] | None = None
    ) -> RecoveryProgress | None:
        """Give up a recovery that came to no end; see `CheckpointService.abandon_recovery`."""
        return await self._pool.ended(self.sync.abandon_recovery, on_progress=_in_loop(on_progress))

    async def get_metrics(self) -> ServiceMetrics:
        """Return how the service does."""
        return await self._pool.call(self.sync.get_metrics)

    def on(self, event: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call a function, or a coroutine function, in the loop.

        That is the loop of this call, or, where none runs, of `initialize` or `start`.
        """
        here = running_loop()
        if not callable(callback):
            raise ArgumentError(f"{quoted(callback)} cannot be called.", argument="callback")
        refuse_deferred("callback", callback, is_awaited=True)

        def call(what: Any) -> None:
            loop = here or self._loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(_call, event, callback, what)

        return self.sync.on(event, call)

    async def __aenter__(self) -> Self:
        try:
            return await self.start()
        except Exception:
            raise
        except BaseException:  # cancelled: the start goes on by itself, and nobody would close it
            await self.close()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _stoppable(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a recovery with a cancel that Pool.ended can set."""
    cancel = options.get("cancel")
    check_watchers(None, cancel)
    return {**options, "cancel": Stoppable(cancel)}


async def _at_once(service: _Service) -> _Service:
    return service


def _close(pictures: Generator[RecoveryProgress, None, None]) -> None:
    """End a recovery that nobody looks at any more; one that was asked for a picture has it yet."""
    while True:
        try:
            pictures.close()
        except ValueError:  # another thread waits for a picture: a cancelled task's
            time.sleep(_POLL_S)
        else:
            return


def _in_loop(
    callback: Callable[[RecoveryProgress], object] | None,
) -> Callable[[RecoveryProgress], object] | None:
    """Return what calls a callback in the loop that runs here, and waits for it."""
    if callback is None or not callable(callback):
        return callback  # what cannot be called is refused where arguments are checked
    refuse_deferred("on_progress", callback, is_awaited=True)
    loop, function = asyncio.get_running_loop(), callback

    async def answer(picture: RecoveryProgress) -> None:
        found = function(picture)
        if inspect.isawaitable(found):
            await found

    def call(picture: RecoveryProgress) -> None:
        if running_loop() is loop:  # no thread was to be had: who waits here keeps the loop
            _begin("recoveryProgress", function(picture))
        elif loop.is_running():
            _answered(answer(picture), loop)

    return call


def _answered(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    """Wait until a loop has run a coroutine; no longer where it runs no more."""
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:  # it was closed just now
        coroutine.close()
        return
    while not wait([future], _POLL_S).done:
        if not loop.is_running():
            if not loop.is_closed():
                future.cancel()
            return
    future.result()


_tasks: set[asyncio.Task[Any]] = set()


def _call(event: str, callback: Callable[[Any], object], what: Any) -> None:
    """Call a callback in the loop; log what it raises."""
    try:
        found = callback(what)
    except Exception:
        _logger.exception("A callback for %s failed", event)
    else:
        _begin(event, found)


def _begin(event: str, found: object) -> None:
    """Let the running loop run what a callback returned, if it is a coroutine."""
    if inspect.iscoroutine(found):
        task = asyncio.get_running_loop().create_task(_awaited(event, found))
        _tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(_tasks.discard)


async def _awaited(event: str, coroutine: Coroutine[Any, Any, object]) -> None:
    try:
        await coroutine
    except Exception:
        _logger.exception("A callback for %s failed", event)
