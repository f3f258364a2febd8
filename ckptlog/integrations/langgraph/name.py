"""Names: how LangGraph's threads, namespaces and checkpoints are called in a store, and back.

    thread      -> task          itself where it can be an id
    namespace   -> namespace     likewise
    checkpoint  -> checkpoint    ranked id: itself, "~", salt (model.rank)

Invariants (specs/langgraph.md, section 2):
- Injective: two threads never share a task, and every name leads back to what it stands for. What
  cannot be an id is written with escapes behind `%:`; what is too long is cut behind `%#` and ends
  in its BLAKE3, and then the original stands in `meta` (as title or description).
- The salt is a digest of thread, namespace and incarnation (how often the thread was deleted): the
  id of (thread, namespace, checkpoint) is computed, never searched, and a thread that is begun
  anew after a delete can use each id again.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Final

from blake3 import blake3

from ckptlog.errors import FormatError
from ckptlog.model.identifier import ID_CHARACTERS_MAX, id_fault
from ckptlog.model.quotation import quoted
from ckptlog.model.rank import ranked_id

_ESCAPED: Final = "%:"
_CUT: Final = "%#"
_SALT_BYTES: Final = 9
_KEPT_CHARACTERS: Final = 60
_FORBIDDEN: Final = re.compile("[%\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPE: Final = re.compile("%([0-9a-f]{1,6});")


@lru_cache(maxsize=4096)
def task_of(thread: str) -> str:
    """Return the task that a thread is."""
    return _name_of(thread)


@lru_cache(maxsize=4096)
def label_of(namespace: str) -> str:
    """Return the label that stands for a namespace of LangGraph's; "" stays ""."""
    return _name_of(namespace) if namespace else ""


def is_cut(name: str) -> bool:
    """Say whether a name does not tell what it stands for."""
    return name.startswith(_CUT)


@lru_cache(maxsize=4096)
def original_of(name: str) -> str:
    """Return the thread or namespace that a name, not a cut one, stands for.

    Raises:
        FormatError: It is no name that this module makes.
    """
    if not name.startswith(_ESCAPED):
        return name
    original = _unescaped(name.removeprefix(_ESCAPED))
    if _name_of(original) != name:
        raise FormatError(f"{quoted(name)} is not the name of a thread or a namespace.")
    return original


def is_name_of(name: str, original: str) -> bool:
    """Say whether a name stands for this thread or namespace."""
    return name == (task_of(original) if original or name else "")


@lru_cache(maxsize=1024)
def salt_of(thread: str, namespace: str, incarnation: int) -> str:
    """Return the salt of a thread's checkpoints in a namespace, in one life of the thread."""
    words = (thread, namespace, str(incarnation))
    parts = [word.encode(errors="surrogatepass") for word in words]
    hashed = blake3(
        b"".join(b"%d:%b" % (len(part), part) for part in parts), derive_key_context=_KEY
    )
    return urlsafe_b64encode(hashed.digest(_SALT_BYTES)).decode()


_KEY: Final = "ckptlog langgraph checkpoint salt 1"


def checkpoint_of(thread: str, namespace: str, incarnation: int, checkpoint: str) -> str:
    """Return the id in the store of a checkpoint of LangGraph's.

    Raises:
        ArgumentError: The checkpoint's id is too long, or no text that can be written.
    """
    return ranked_id(checkpoint, salt_of(thread, namespace, incarnation))


def _name_of(original: str) -> str:
    if id_fault(original) is None and not original.startswith((_ESCAPED, _CUT)):
        return original
    escaped = _escaped(original)
    if len(escaped) + len(_ESCAPED) <= ID_CHARACTERS_MAX:
        return _ESCAPED + escaped
    digest = blake3(original.encode(errors="surrogatepass")).hexdigest()
    return f"{_CUT}{_escaped(original[:_KEPT_CHARACTERS])[:_KEPT_CHARACTERS]}~{digest}"


def _escaped(original: str) -> str:
    text = _FORBIDDEN.sub(lambda match: _escape(match.group()), original)
    # Of blanks only those at the ends are in the way.
    if text[:1].isspace():
        text = _escape(text[0]) + text[1:]
    if text[-1:].isspace():
        text = text[:-1] + _escape(text[-1])
    return text


def _escape(character: str) -> str:
    return f"%{ord(character):x};"


def _unescaped(text: str) -> str:
    try:
        return _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), text)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{quoted(text)} has a wrong escape.") from error
