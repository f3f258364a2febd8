"""`python -m ckptlog` is the same as `ckptlog`."""

from __future__ import annotations

from ckptlog.cli.entry import run

raise SystemExit(run())
