"""Where the program begins: so little is imported here that Ctrl-C finds it ready.

The imports of the commands take longer than all of `ckptlog --version`; an interrupt in the middle
of them ends as every other one does, and not in a traceback.
"""

from __future__ import annotations

import sys

_INTERRUPTED = 130  # as in exit_status.py, which may not have been imported yet
_JSON = (
    '{"code": "cli.interrupted", "message": "Interrupted.", "hint": "", "retryable": false, '
    '"context": {}}\n'
)


def run() -> int:
    """Run the program and return its exit status."""
    try:
        from ckptlog.storage.descriptor import occupy_standard

        occupy_standard()
        from ckptlog.cli.main import main

        return main()
    except KeyboardInterrupt:
        is_json = "--json" in sys.argv
        sys.stderr.write(_JSON if is_json else "ckptlog: Interrupted. [cli.interrupted]\n")
        return _INTERRUPTED
