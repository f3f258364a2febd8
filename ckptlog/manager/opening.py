"""Which store a manager works on: its directory, its configuration, or an open store, never two."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ckptlog.errors import SettingsError
from ckptlog.model.codec import Codecs
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.quotation import quoted
from ckptlog.repository.opening import directory_of, open_store
from ckptlog.repository.store import Durability, Store


def open_for(
    storage_dir: str | Path | None,
    given: CheckpointConfiguration | None,
    config: CheckpointConfiguration,
    codecs: Codecs,
) -> Store:
    """Open the store that a manager's arguments name, made where it is missing.

    Args:
        given: The configuration as the caller gave it; None where there was none.
        config: The same, or the default one.
        codecs: For values of the user's own types.

    Raises:
        SettingsError: storage_dir and given name different directories.
    """
    _refuse_no_path(storage_dir)
    named_twice = storage_dir is not None and given is not None and not _is_default(given)
    if named_twice and not _is_same(storage_dir, config.storage_dir):
        raise SettingsError(
            f"storage_dir is {str(storage_dir)!r}, but config says {config.storage_dir!r}.",
            hint="Name the directory in one of the two places.",
        )
    return open_store(
        config.storage_dir if storage_dir is None else storage_dir,
        create=True,
        durability=cast("Durability", config.durability),
        interval_s=config.interval_s,
        timeout_s=config.operation_timeout_seconds,
        queue_max=config.max_concurrent_operations,
        cache_bytes=config.cache_size_bytes,
        compression_level=config.zstd_level,
        codecs=codecs,
        head_interval_s=config.head_interval_s or None,
    )


def _is_same(one: object, other: object) -> bool:
    return directory_of(one).resolve() == directory_of(other).resolve()


def _is_default(config: CheckpointConfiguration) -> bool:
    return config.storage_dir == CheckpointConfiguration().storage_dir


def refuse_other(
    storage_dir: str | Path | None,
    config: CheckpointConfiguration | None,
    store: Store,
    codecs: Codecs,
) -> None:
    """Refuse a directory beside an open store that lies elsewhere, or codecs beside its own."""
    if len(codecs) and codecs is not store.codecs:
        raise SettingsError(
            "codecs are given beside an open store, which has its own.",
            hint="Open the store with them: ckptlog.open(path, codecs=...).",
            argument="codecs",
        )
    _refuse_no_path(storage_dir)
    named = storage_dir
    if named is None and config is not None and not _is_default(config):
        named = config.storage_dir
    if named is not None and not _is_same(named, store.path):
        raise SettingsError(
            f"The store given lies at {store.path}, but {str(named)!r} is named too.",
            hint="Give the store alone.",
        )
    if config is not None:
        _refuse_other_settings(config, store)


def _refuse_other_settings(config: CheckpointConfiguration, store: Store) -> None:
    """Refuse what would have to be ignored: an open store has its settings."""
    default = CheckpointConfiguration()
    for name, own in store.settings.items():
        wanted = getattr(config, name)
        if wanted not in (own, getattr(default, name)):
            raise SettingsError(
                f"config says {name} = {wanted!r}, but the store given was opened with {own!r}.",
                hint="Open the store with that setting, or leave it out of config.",
                argument=name,
            )


def _refuse_no_path(storage_dir: object) -> None:
    if storage_dir is not None and not isinstance(storage_dir, str | Path):
        raise SettingsError(
            f"storage_dir is {quoted(storage_dir)}, which is not a path.",
            hint="Name a directory.",
            argument="storage_dir",
        )


def refuse_wrong_type(name: str, value: object, kind: type) -> None:
    """Refuse an argument of another class; None is none."""
    if value is not None and not isinstance(value, kind):
        raise SettingsError(
            f"{name} is of type {type(value).__name__}; {kind.__name__} is needed.", argument=name
        )
