"""The `metrics` extra: libraries that are imported when they are used, and named when missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_metrics(what: str, package: str) -> Iterator[None]:
    """Turn a failing import of a package, in the block, into an error that names the extra.

    Raises:
        ImportError: The package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package.partition(".")[0]:
            raise
        raise ImportError(
            f'{what} needs {package}, which is missing: pip install "ckptlog[metrics]"',
            name=error.name,
        ) from error
