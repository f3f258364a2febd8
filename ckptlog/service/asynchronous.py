"""AsyncCheckpointService: the same service for asyncio; no call blocks the loop.

Each call runs in a thread; a call that is cancelled is not waited for any more and ends by itself.
Callbacks that are coroutine functions run in the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ckptlog.model.capture import CaptureInfo
from ckptlog.model.codec import Codecs, TypeCodec
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.repository.store import Store
from ckptlog.service.alerting import Alert
from ckptlog.service.creation import Configuration, create_checkpoint_system
from ckptlog.service.creation import quick_start as start_quickly
from ckptlog.service.operation import Operation
from ckptlog.service.service import CheckpointService
from ckptlog.service.tally import ServiceMetrics

if TYPE_CHECKING:
    from ckptlog.recovery.progress import RecoveryProgress

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

        Called in the loop, dependencies whose get_state and set_state are coroutines run there.
        """
        return cls(create_checkpoint_system(config, dependencies, store=store, codecs=codecs))

    @classmethod
    async def quick_start(
        cls, dependencies: object = None, *, config: Configuration | None = None
    ) -> Self:
        """Make a service and start it, as `quick_start`."""
        if dependencies is None:
            return cls(await asyncio.to_thread(start_quickly, config=config))
        service = cls.create(config, dependencies)
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
        await asyncio.to_thread(self.sync.initialize)
        return self

    async def start(self) -> Self:
        """Own the system and capture it; see `CheckpointService.start`."""
        await asyncio.to_thread(self.sync.start, signals=False)
        self.sync.listen_to_signals()
        return self

    async def stop(self) -> None:
        """Capture once more and give the system up; see `CheckpointService.stop`."""
        await asyncio.to_thread(self.sync.stop)

    async def close(self) -> None:
        """Stop, and close the store; see `CheckpointService.close`."""
        await asyncio.to_thread(self.sync.close)

    async def pause(self) -> None:
        """Take no automatic captures until `resume`."""
        self.sync.pause()

    async def resume(self) -> None:
        """Capture again."""
        self.sync.resume()

    async def create_checkpoint(
        self, description: str = "", tags: Iterable[str] = ()
    ) -> CaptureInfo:
        """Capture the system now; see `CheckpointService.create_checkpoint`."""
        return await asyncio.to_thread(self.sync.create_checkpoint, description, tuple(tags))

    async def list_checkpoints(self, limit: int | None = None) -> list[CaptureInfo]:
        """Return the captures that are there, newest first."""
        return await asyncio.to_thread(self.sync.list_checkpoints, limit)

    async def validate_checkpoint(self, checkpoint_id: str | None = None) -> list[str]:
        """Say what is wrong with a capture; see `CheckpointService.validate_checkpoint`."""
        return await asyncio.to_thread(self.sync.validate_checkpoint, checkpoint_id)

    async def recover_from_checkpoint(
        self,
        checkpoint_id: str | None = None,
        components: Iterable[str] | None = None,
        partial: bool = False,  # noqa: FBT001, FBT002 - the specification's signature
        dry_run: bool = False,  # noqa: FBT001, FBT002 - same
        *,
        at: datetime | int | None = None,
        **options: Any,
    ) -> RecoveryProgress:
        """Bring the system back; see `CheckpointService.recover_from_checkpoint`."""
        names = None if components is None else list(components)
        return await asyncio.to_thread(
            self.sync.recover_from_checkpoint,
            checkpoint_id,
            names,
            partial,
            dry_run,
            at=at,
            **options,
        )

    async def get_metrics(self) -> ServiceMetrics:
        """Return how the service does."""
        return await asyncio.to_thread(self.sync.get_metrics)

    def on(self, event: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call a function, or a coroutine function, in the loop; call this in the loop too."""
        loop = asyncio.get_running_loop()

        def call(what: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_call, event, callback, what)

        return self.sync.on(event, call)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


_tasks: set[asyncio.Task[Any]] = set()


def _call(event: str, callback: Callable[[Any], object], what: Any) -> None:
    """Call a callback in the loop; log what it raises."""
    try:
        found = callback(what)
    except Exception:
        _logger.exception("A callback for %s failed", event)
        return
    if inspect.iscoroutine(found):
        task = asyncio.get_running_loop().create_task(_awaited(event, found))
        _tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(_tasks.discard)


async def _awaited(event: str, coroutine: Coroutine[Any, Any, object]) -> None:
    try:
        await coroutine
    except Exception:
        _logger.exception("A callback for %s failed", event)
