"""The history as a pyarrow dataset: what `Store.history` returns.

Large spans are files that stay; the dataset reads them when it is asked, and pages whose checksum
is wrong are refused. The few spans at the end are replaced as the history grows, so their rows
are taken into memory (at most 131,071): a dataset shows the history of its moment for as long as
it is kept, whatever other processes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptlog.views.history.column import PARTITION, dataset_schema
from ckptlog.views.history.manifest import File, Manifest
from ckptlog.views.history.shelf import Shelf

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds


def open_dataset(shelf: Shelf, manifest: Manifest) -> ds.Dataset:
    """Return the rows that a manifest names.

    Raises:
        ViewDamagedError: A file cannot be read.
    """
    import pyarrow.dataset as ds

    final = [file for file in manifest.files if file.span.is_final]
    tail = [file for file in manifest.files if not file.span.is_final]
    parts = [_files(shelf, final)] if final else []
    if tail or not parts:
        parts.append(ds.dataset(_with_dates(shelf.read(tail))))
    return parts[0] if len(parts) == 1 else ds.dataset(parts)


def _files(shelf: Shelf, files: Sequence[File]) -> ds.Dataset:
    import pyarrow as pa
    import pyarrow.dataset as ds

    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    days = ds.partitioning(pa.schema([pa.field(PARTITION, pa.date32())]), flavor="hive")
    return ds.dataset(
        [str(shelf.folder / file.name) for file in files],
        schema=dataset_schema(),
        format=ds.ParquetFileFormat(default_fragment_scan_options=options),
        partitioning=days,
        partition_base_dir=str(shelf.folder),
    )


def _with_dates(rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    dates = rows["time"].cast(pa.date32())
    return rows.append_column(dataset_schema().field(PARTITION), dates)
