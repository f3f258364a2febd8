"""Exit statuses: what a script learns without reading a word (specs/cli.md).

Every error code of `ckptlog.errors` has its status here, by itself or through its branch.
A command that did a part of its work only never ends with 0.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
PARTIAL: Final = 1  # a part failed, or something nobody foresaw
USAGE: Final = 2  # an argument or a value is wrong
NOT_FOUND: Final = 3  # no such checkpoint, part of one, task or store
CONFLICT: Final = 4  # the present state does not allow it
CORRUPTION: Final = 5  # stored bytes are not what was written
STORAGE: Final = 6  # the medium or the store refused
OWN_FAILURE: Final = 125  # of `run`, whose other statuses are the command's
INTERRUPTED: Final = 130  # 128 + SIGINT
TERMINATED: Final = 143  # 128 + SIGTERM
CLOSED_PIPE: Final = 141  # 128 + SIGPIPE: who read the output went away

BY_CODE: Final[dict[str, int]] = {
    "checkpoint.error": PARTIAL,
    "argument.invalid": USAGE,
    "argument.address": USAGE,
    "argument.no_such_part": NOT_FOUND,
    "argument.unstorable": USAGE,
    "argument.too_large": USAGE,
    "argument.settings": USAGE,
    "component.invalid": USAGE,
    "create.failed": PARTIAL,
    "capture.failed": PARTIAL,
    "capture.changed": PARTIAL,
    "capture.too_large": STORAGE,
    "create.invalid": USAGE,
    "create.refused": CONFLICT,
    "create.duplicate_id": CONFLICT,
    "create.quota": STORAGE,
    "checkpoint.not_found": NOT_FOUND,
    "update.failed": PARTIAL,
    "update.invalid": USAGE,
    "update.illegal_transition": CONFLICT,
    "update.conflict": CONFLICT,
    "command.id_reused": CONFLICT,
    "corruption.detected": CORRUPTION,
    "format.malformed": CORRUPTION,
    "log.corrupt": CORRUPTION,
    "proof.invalid": CORRUPTION,
    "head.rewritten": CORRUPTION,
    "head.rolled_back": CORRUPTION,
    "signature.invalid": CORRUPTION,
    "blob.corrupt": CORRUPTION,
    "storage.failed": STORAGE,
    "store.missing": NOT_FOUND,
    "store.not_a_store": NOT_FOUND,
    "store.unsupported": STORAGE,
    "value.unregistered_type": STORAGE,
    "planting.stale": CONFLICT,
    "store.read_only": STORAGE,
    "store.closed": STORAGE,
    "storage.full": STORAGE,
    "storage.denied": STORAGE,
    "storage.io": STORAGE,
    "lock.timeout": STORAGE,
    "store.collection_busy": STORAGE,
    "commit.busy": STORAGE,
    "consumer.busy": STORAGE,
    "consumer.damaged": CORRUPTION,
    "consumer.foreign": CONFLICT,
    "consumer.unacknowledged": STORAGE,
    "delivery.failed": STORAGE,
    "head.forked": CONFLICT,
    "key.missing": NOT_FOUND,
    "key.unsafe": STORAGE,
    "log.other_timeline": CONFLICT,
    "restore.conflict": CONFLICT,
    "commit.outcome_unknown": STORAGE,
    "witness.conflict": CONFLICT,
    "blob.missing": CORRUPTION,
    "payload.collected": NOT_FOUND,
    "backup.damaged": CORRUPTION,
    "backup.diverged": CONFLICT,
    "backup.foreign": CONFLICT,
    "import.conflict": CONFLICT,
    "lease.held": CONFLICT,
    "service.busy": CONFLICT,
    "lease.lost": CONFLICT,
    "lease.required": CONFLICT,
    "recovery.failed": PARTIAL,
    "recovery.incomplete": PARTIAL,
    "recovery.cancelled": PARTIAL,
    "recovery.refused": CONFLICT,
    "recovery.unfinished": CONFLICT,
    "recovery.busy": CONFLICT,
    "recovery.suspended": STORAGE,
    "component.foreign_payload": USAGE,
    "component.source": STORAGE,
    "component.source_busy": STORAGE,
    "component.environment_differs": CONFLICT,
    "task.given_up": CONFLICT,
    "service.state": CONFLICT,
}


def status_of(error: BaseException) -> int:
    """Return the exit status of an error: its code's, else that of its nearest branch."""
    for kind in type(error).__mro__:
        code = vars(kind).get("code")
        if isinstance(code, str) and code in BY_CODE:
            return BY_CODE[code]
    return PARTIAL
