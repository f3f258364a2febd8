"""The kernel: the hottest pure functions, in C where they could be compiled.

`native` is the compiled module, or None: no compiler at the installation, another interpreter, or
`CKPTLOG_PURE=1` in the environment. Each function is a short way through one in Python, which is
its meaning; the tests hold the two together to the byte:

    native.wire          through model/value.py's `prepare`
    native.lift          through model/lift.py's `Lifting`
    native.suspect       through policy/sanitise.py's `may_hold_secret`
    native.short_entry   through formats/short_event.py's `pack`, and JSON
    native.short_event   through JSON, and formats/short_event.py's `unpack`
    native.end_of_value, run_of_items, is_same    through formats/json_text.py
    native.outline       through formats/outline.py
    native.lines_among, met_among, sieve_of, sorted_lines, order_of_lines    through formats/line.py
    native.confirm       through capture/directory/confirmation.py's `_confirm`
    native.look          through capture/directory/folder.py's `_look`
    native.relocate      through formats/relocation.py
    native.raw_leaves    through formats/raw_leaf.py's `_raw_leaves`
    native.links_in, parts_in    through formats/branch.py
    native.place_in_run  through blobs/run.py

Nothing here knows a room above; what a function needs is handed to it.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from importlib import import_module
from typing import Any, Final, Protocol, cast

__all__ = ["REVISION", "Kernel", "native"]

REVISION: Final = 14


class Kernel(Protocol):
    """What the compiled module offers.

    Threads: safe; nothing is kept between calls.

    Attributes:
        HASHES: Whether this machine has the wide registers that its hashing is fast with.
    """

    HASHES: bool

    def wire(  # noqa: PLR0917 - called once for each value, by one caller
        self,
        value: Any,
        codecs: tuple[Any, ...],
        verdicts: dict[str, bool] | None,
        replacement: str,
        odd: Callable[[Any, Any, int, int], tuple[bytes, int] | None],
        context: Any,
        encode: Callable[[Any], bytes],
        depth_max: int,
        containers_max: int,
        /,
    ) -> bytes | None:
        """Return a value's wire; None where only the long way can say what it is.

        Args:
            codecs: Of each registered type that has attributes: the type, the start of its
                objects' wires, the names of the attributes; one after the other.
            verdicts: Which keys name a secret; asked by item where it does not say. None: none do.
            replacement: A text that may stand under a secret key.
            odd: odd(context, value, depth, containers left) gives the wire of a value of any
                other type and the containers that are left then, or None for the long way.
            encode: Gives the wire of a finite float, or of a list of them.
        """

    def lift(
        self,
        lowered: Any,
        codecs: dict[str, tuple[Any, ...]],
        tagged: Callable[[str, Any, int], Any],
        failed: Callable[[str, type, Any], Any],
        depth_max: int,
        /,
    ) -> Any:
        """Return the value of what was just decoded; its containers become the value's.

        Args:
            codecs: Type and `lift` of each name; where an object is its attributes also their
                names, and those that are made anew, each with what makes it.
            tagged: tagged(tag, content, depth) gives the value of any other tag, or raises.
            failed: failed(name, type, exception or object of another type) raises what is to be
                told about a `lift`.

        Raises:
            ValueError: It is nested too deep.
        """

    def suspect(self, wire: bytes, table: bytes, at: int, /) -> int:
        """Return the first place from `at` on that may be a hint of the table, or -1.

        The table is policy/hint_table.py's.
        """

    def end_of_value(self, text: bytes, at: int, limit: int, /) -> int:
        """Do as formats.json_text.end_of_value."""

    def is_same(self, text: bytes, at: int, other: bytes, start: int, size: int, /) -> bool:
        """Do as formats.json_text.is_same."""

    def run_of_items(  # noqa: PLR0917
        self,
        text: bytes,
        place: int,
        is_object: bool,  # noqa: FBT001
        gathered: int,
        inline_max: int,
        bounds: tuple[int, int, int],
        items_max: int,
        /,
    ) -> tuple[int, int, int, int, int]:
        """Do as formats.json_text.run_of_items."""

    def outline(
        self, data: bytes | mmap.mmap, at: int, stop: int, items_max: int, /
    ) -> tuple[int, int, bytes, bytes]:
        """Do as formats.outline.outline.

        Threads: others run meanwhile.
        """

    def lines_among(
        self, body: bytes, keys: AbstractSet[bytes] | None, sieve: bytes, /
    ) -> list[tuple[bytes, int, int]]:
        """Do as formats.line.lines_among; `keys` is a set."""

    def met_among(
        self, body: bytes, keys: AbstractSet[bytes], sieve: bytes, /
    ) -> tuple[set[bytes], int, int]:
        """Do as formats.line.met_among; `keys` is a set."""

    def sieve_of(self, keys: AbstractSet[bytes], size: int, /) -> bytes:
        """Do as formats.line.sieve_of; `keys` is a set."""

    def sorted_lines(self, lines: list[tuple[bytes, int, int]], /) -> bytes:
        """Do as formats.line.sorted_lines."""

    def order_of_lines(self, body: bytes, first: int, stop: int, /) -> tuple[bool, bool]:
        """Do as formats.line.order_of."""

    def relocate(  # noqa: PLR0917
        self,
        data: bytes | mmap.mmap,
        base: int,
        lines: list[tuple[bytes, int, int]],
        source: int,
        target: int,
        at: int,
        /,
    ) -> tuple[bytes, int]:
        """Do as formats.relocation.relocate."""

    def raw_leaves(
        self,
        seed: int,
        base: int,
        data: memoryview,
        is_hashed: bool,  # noqa: FBT001
        /,
    ) -> list[tuple[bytes, int, int]]:
        """Do as formats.raw_leaf._raw_leaves; `data` is written to meanwhile.

        Args:
            is_hashed: Whether those are left out, too, whose digest is another's.

        Threads: others run meanwhile.
        """

    def links_in(self, raw: bytes, /) -> tuple[list[bytes], list[tuple[bytes, int, int]]] | None:
        """Do as formats.branch.links_in; None where that raises."""

    def parts_in(self, raw: bytes, link: type[Any], leaf_max: int, /) -> list[Any] | None:
        """Do as formats.branch.decode; None where that raises.

        Args:
            link: Makes a link of kind, digest, size and items.
            leaf_max: Bytes that a leaf may have.
        """

    def place_in_run(  # noqa: PLR0917 - called once for each chunk, by one caller
        self,
        data: bytes | mmap.mmap,
        buckets: array[int],
        checked: bytearray,
        shift: int,
        count: int,
        digest: bytes,
        /,
    ) -> int:
        """Return the number of a run's entry with a key: see blobs.run.

        Returns:
            -1 where there is none; -2 where a block was not checked yet, or the run is unsound.
        """

    def short_entry(  # noqa: PLR0917 - called once for each event, by one caller
        self,
        types: tuple[str, ...],
        actor: str,
        created: str,
        time: str,
        checkpoint: str,
        data_root: str | None,
        data_size: int,
        data_kind: str,
        identifier: str,
        meta_root: str | None,
        meta_size: int,
        meta_kind: str,
        new: int,
        origin: int,
        previous: int,
        namespace: str,
        state: str,
        step: int,
        task: str,
        total: int,
        kind: str,
        parent: str,
        worker: str,
        /,
    ) -> bytes | None:
        """Return an ordinary event in schema 2; None where only the long way can write it.

        Args:
            types: Each type that tells the state, followed by the state; that of a creation first.
            data_root, meta_root: None where there is no payload; size and kind do not count then.
            kind: The event's type.
        """

    def short_event(self, entry: bytes | memoryview, parts: tuple[Any, ...], /) -> Any:
        """Return the event of an ordinary entry of schema 2; None where only the long way can.

        Args:
            entry: Of whatever bytes; nothing about them is taken for granted.
            parts: Event, Reference, Subject; the names of the fields that the event is made with;
                types as in `short_entry`; the kind of reference and the schema that go unsaid.
        """

    def confirm(self, root: int, blob: bytes, start: int, stop: int, reserved: bytes, /) -> bytes:
        """Return for each record between two places whether its directory is as remembered: 0, 1.

        Args:
            root: Descriptor of the directory that paths begin at.
            blob: Records, one behind the other, as capture/directory/table.py writes them.
            reserved: Names that do not count, each with a NUL behind it; they begin with a dot.

        Raises:
            ValueError: A place is out of range, or a record cut.

        Threads: others run meanwhile.
        """

    def look(
        self, fd: int, reserved: bytes, /
    ) -> (
        tuple[
            list[tuple[str, int, int, int, int, int]],
            list[tuple[str, int, int]],
            list[tuple[str, int]],
        ]
        | None
    ):
        """Return what lies in an open directory, as folder.Folder, in the system's order.

        Args:
            reserved: As `confirm`.

        Returns:
            None where a name cannot be looked at: Python finds out why.

        Threads: others run meanwhile.
        """


def _compiled() -> Kernel | None:
    if os.environ.get("CKPTLOG_PURE", "") not in {"", "0"}:
        return None
    try:
        module = import_module("ckptlog.kernel._kernel")
    except ImportError:
        return None
    # One that was compiled from another version of the source could miss what this one looks for.
    return cast("Kernel", module) if getattr(module, "REVISION", 0) == REVISION else None


native = _compiled()
