"""How a service is made: the two functions of the specification."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ckptlog.errors import SettingsError, operating_system_door
from ckptlog.model.codec import Codecs, TypeCodec
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.quotation import quoted
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.repository.store import Store
from ckptlog.service.dependency import components_of
from ckptlog.service.service import CheckpointService

Configuration = (
    SystemConfiguration | CheckpointConfiguration | Mapping[str, Any] | str | os.PathLike[str]
)
_FILE_BYTES_MAX = 1024 * 1024


def create_checkpoint_system(
    config: Configuration | None = None,
    dependencies: object = None,
    *,
    store: Store | None = None,
    codecs: Codecs | Iterable[TypeCodec] = (),
) -> CheckpointService:
    """Make a service; `initialize()` and `start()` it, or use it as a context manager.

    Args:
        config: A dict in camelCase or snake_case, a configuration, or the path of a TOML or JSON
            file. None: the variables CKPTLOG_..., else defaults.
        dependencies: A dict of agent_manager, memory_manager, queue_manager, task_manager,
            system_manager (or camelCase) and of components by name; or a list of components.
        store: An open store to use; the caller closes it.
        codecs: How objects of your own types are stored.

    Raises:
        SettingsError: A setting is unknown or wrong; names the path of the key.
        ComponentError: A dependency is unknown, or gives no state; or there is none.
    """
    return CheckpointService(
        load_configuration(config), components_of(dependencies), store=store, codecs=codecs
    )


def quick_start(
    dependencies: object = None, *, config: Configuration | None = None
) -> CheckpointService:
    """Make a service and start it: a capture every 30 seconds, from now on.

    Args:
        dependencies: As `create_checkpoint_system`. None: the environment of the process alone
            (versions, packages, variables without secrets), until there is more to save.
        config: As `create_checkpoint_system`.
    """
    service = create_checkpoint_system(config, default_dependencies(dependencies))
    try:
        return service.start()
    except BaseException:
        service.close()
        raise


def default_dependencies(dependencies: object) -> object:
    """Return what is given, or else what `quick_start` saves."""
    if dependencies is not None:
        return dependencies
    from ckptlog.capture.environment import EnvironmentComponent

    return [EnvironmentComponent()]


def load_configuration(config: Configuration | None = None) -> SystemConfiguration:
    """Return the configuration of what a user may give; see `create_checkpoint_system`.

    Raises:
        SettingsError: A setting is unknown or wrong, or the file is none.
    """
    if config is None:
        return SystemConfiguration.from_env(os.environ)
    if isinstance(config, SystemConfiguration):
        return config
    if isinstance(config, CheckpointConfiguration):
        return SystemConfiguration.from_checkpoint_configuration(config)
    if isinstance(config, Mapping):
        return SystemConfiguration.from_dict(config)
    if isinstance(config, str | os.PathLike):
        return _of_file(Path(config))
    raise SettingsError(
        f"config is {quoted(config)}.",
        hint="Give a dict, a SystemConfiguration, or the path of a TOML or JSON file.",
        argument="config",
    )


def _of_file(path: Path) -> SystemConfiguration:
    readers = {".toml": SystemConfiguration.from_toml, ".json": SystemConfiguration.from_json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SettingsError(
            f"The configuration {str(path)!r} is no .toml and no .json file.", argument="config"
        )
    with operating_system_door(f"Cannot read the configuration {path}"), path.open("rb") as file:
        content = file.read(_FILE_BYTES_MAX + 1)
    if len(content) > _FILE_BYTES_MAX:
        raise SettingsError(f"The configuration {path} is larger than 1 MiB.", argument="config")
    try:
        return reader(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"The configuration {path} is not UTF-8.", argument="config") from error
    except SettingsError as error:
        error.add_note(f"In {path}.")
        raise
