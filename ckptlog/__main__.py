"""`python -m ckptlog` is the same as `ckptlog`."""

from __future__ import annotations

from ckptlog.cli.main import main

raise SystemExit(main())
