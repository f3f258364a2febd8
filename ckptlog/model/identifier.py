"""Ids: what a task, worker or checkpoint may be called, and how names reach the disk.

An id is text of any script. It may not hold control characters or surrogates, nor begin or end
with a blank: such names break terminals, JSON and file systems. Ids reach file names and URLs
only through `file_name`, so `../` in an id is harmless.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

from blake3 import blake3

from ckptlog.errors import ArgumentError

ID_CHARACTERS_MAX = 200
CHECKPOINT_ID_CHARACTERS_MAX = 512
FILE_NAME_BYTES_MAX = 200

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@lru_cache(maxsize=8192)
def _fault(value: str, characters_max: int) -> str | None:
    if not value:
        return "is empty"
    if len(value) > characters_max:
        return f"has {len(value)} characters; at most {characters_max} are allowed"
    if bad := _FORBIDDEN.search(value):
        return f"has a control character or surrogate U+{ord(bad.group()):04X} at {bad.start()}"
    if value != value.strip():
        return "begins or ends with a blank"
    return None


def id_fault(value: object, characters_max: int = ID_CHARACTERS_MAX) -> str | None:
    """Say in words why value cannot be an id, or return None when it can."""
    if type(value) is not str:
        return f"is of type {type(value).__name__}; text (str) is needed"
    return _fault(value, characters_max)


def check_id(name: str, value: object, characters_max: int = ID_CHARACTERS_MAX) -> str:
    """Return value when it is a legal id.

    Raises:
        ArgumentError: It is not; the message has `name` and the reason.
    """
    # The hot path of every call: a good id that was seen before is one look-up.
    if type(value) is str and _fault(value, characters_max) is None:
        return value
    raise ArgumentError(
        f"{name} {id_fault(value, characters_max)}.",
        hint="Use 1 to 200 printable characters.",
        argument=name,
    )


def checkpoint_id(task: str, step: int, time_us: int) -> str:
    """Return the id of the specification, `cp_{task_id}_{step}_{timestamp}`; time in Unix us."""
    return f"cp_{task}_{step}_{time_us}"


def file_name(identifier: str) -> str:
    """Return a portable file name for an id: percent-escaped, at most 200 bytes.

    Longer names are cut and end in the id's BLAKE3, so that two ids never share a name.
    """
    name = quote(identifier, safe="-_.~ ").replace(" ", "%20")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) <= FILE_NAME_BYTES_MAX:
        return name
    digest = blake3(identifier.encode()).hexdigest()
    return f"{name[: FILE_NAME_BYTES_MAX - len(digest) - 1]}~{digest}"


def id_time(identifier: str) -> int:
    """Return the timestamp that a checkpoint id ends in, or 0 where it has none.

    A generated id is unused when its timestamp is above every timestamp in the store.
    """
    if not identifier.startswith("cp_"):
        return 0
    digits = identifier[identifier.rfind("_") + 1 :]
    is_time = digits.isdigit() and len(digits) <= 18 and digits.isascii()
    return int(digits) if is_time else 0
