"""A process that imports a SqliteSaver's database: `python -m ... STORE FILE`. To be killed."""

from __future__ import annotations

import sys

import ckptlog
from ckptlog.integrations.langgraph.migration import import_sqlite


def tell(done, total):
    print(done, flush=True)


def main():
    with ckptlog.open(sys.argv[1], create=True) as store:
        report = import_sqlite(store, sys.argv[2], progress=tell)
    print("end", report.failed, report.checkpoints, report.verified, flush=True)


if __name__ == "__main__":
    main()
