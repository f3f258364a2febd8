"""A mapping of numpy arrays as a component: copied at the barrier, planted raw after it.

They are planted one after the other, each as an array in any value is (specs/values.md), so that
`show`, `diff` and `restore` read them: those of more than 1 MiB as raw bytes, cut by content and
never made to text. Of a large array only the stretches that changed are stored again.

A restore writes into the arrays that are there where type, shape and order are the same, so that
views, models and optimisers which hold them see the restored content; others are exchanged.

Whether a restore has something to change, before it and after it, is told by comparing bytes: a NaN
equals itself, and a zero of another sign is another one.

Stability: "copied" (the barrier lasts as long as the copy: about 0.1 s for 500 MB), or "immutable"
where the program never writes into an array that it has put into the mapping: then the barrier
lasts as long as a look at the mapping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from ckptlog.capture.shape import refuse_faults
from ckptlog.errors import ComponentError, UnstorableError
from ckptlog.model.component import COPIED, IMMUTABLE, Change, Plan
from ckptlog.model.quotation import quoted
from ckptlog.model.value import prepare

if TYPE_CHECKING:
    import numpy

_FORM: Final = "arrays-1"
# Bytes that are compared at once: the mask of their differences is as large.
_STRETCH: Final = 1024 * 1024


class ArraysComponent:
    """A dict of numpy arrays, by name.

    Threads: the mapping and its arrays belong to the program; it holds still at the barrier.
    """

    kind = "arrays"
    reads_parts = True

    def __init__(
        self,
        name: str,
        arrays: MutableMapping[str, numpy.ndarray[Any, Any]],
        *,
        stability: str = COPIED,
    ) -> None:
        """Make the component.

        Args:
            name: Of the component.
            arrays: The mapping; a restore changes it in place.
            stability: "copied", or "immutable" where arrays are never written into.

        Raises:
            ComponentError: It is no mapping; another stability.
        """
        if not isinstance(arrays, MutableMapping):
            raise ComponentError(
                f"What is given for the component {quoted(name)} is of type "
                f"{type(arrays).__name__}.",
                hint="Give a dict of arrays by name.",
                component=name,
            )
        if stability not in (COPIED, IMMUTABLE):
            raise ComponentError(
                f"stability of the component {quoted(name)} is {quoted(stability)}.",
                hint='"copied" or "immutable".',
                component=name,
            )
        self.name = name
        self.stability = stability
        self._arrays = arrays

    def capture(self) -> ArraysSnapshot:
        """Return the arrays of this moment.

        Raises:
            UnstorableError: One cannot be stored exactly; the message names it.

        Cost: a copy of all arrays, unless they are immutable.
        """
        taken = {}
        for name, array in dict(self._arrays).items():
            _check(self.name, name, array)
            taken[name] = array if self.stability == IMMUTABLE else array.copy(order="K")
        return ArraysSnapshot(taken, self.stability)

    def validate(self, payload: Any) -> list[str]:
        """Return what is wrong with a payload (a Stored), from its outer form."""
        return _faults(payload)

    def restore(self, payload: Any) -> None:
        """Put captured arrays back, each into the array that is there if it fits.

        Raises:
            ForeignPayloadError: The payload is not of arrays; nothing was changed.
        """
        refuse_faults(self.name, _faults(payload))
        captured = dict(_arrays_of(payload))
        faults = [
            f"has {quoted(name)} that is no array"
            for name, array in captured.items()
            if not _is_array(array)
        ]
        refuse_faults(self.name, faults)
        for name in [name for name in self._arrays if name not in captured]:
            del self._arrays[name]
        for name, array in captured.items():
            present = self._arrays.get(name)
            if present is not None and _fits(present, array):
                present[...] = array
            else:
                self._arrays[name] = array

    def plan(self, stored: Any) -> Plan:
        """Return which arrays a restore would add, change or remove.

        Raises:
            ForeignPayloadError: The payload is not of arrays.

        Cost: reads the captured arrays, one after the other; memory for the largest.
        """
        refuse_faults(self.name, _faults(stored))
        left = dict(self._arrays)
        changes: list[Change] = []
        for name, array in _arrays_of(stored):
            if name not in left:
                changes.append(Change("add", name, _size(array)))
            elif not _equals(left.pop(name), array):
                changes.append(Change("change", name, _size(array)))
        changes += [Change("remove", str(name)) for name in left]
        changes.sort(key=lambda one: one.path)
        return Plan(tuple(changes), stored.size, _summary(changes))


class ArraysSnapshot:
    """Arrays that nobody changes, until they are written."""

    def __init__(self, arrays: Mapping[str, Any], stability: str) -> None:
        self.stability = stability
        self._arrays = dict(arrays)

    def write(self, writer: Any, before: Any | None) -> Any:
        """Write the arrays, large ones raw; see model.component.Snapshot."""
        del before  # what is stored is known to the writer
        inner = writer.mapping(is_sorted=False)
        for name in list(self._arrays):
            inner.add(name, writer.value(self._arrays.pop(name), path=f"arrays[{name!r}]"))
        outer = writer.mapping(is_sorted=False)
        outer.add("form", writer.value(_FORM))
        outer.add("arrays", inner.finish())
        return writer.root(outer.finish())

    def close(self) -> None:
        """Let go of the copies."""
        self._arrays.clear()


def _check(component: str, name: Any, array: Any) -> None:
    if type(name) is not str:
        raise UnstorableError(
            f"The component {quoted(component)} has an array under {quoted(name)}.",
            hint="Names of arrays are texts.",
            component=component,
        )
    if not _is_array(array):
        raise UnstorableError(
            f"The component {quoted(component)} has a value of type {type(array).__name__} under "
            f"{quoted(name)}.",
            hint="Give numpy arrays; numpy.asarray makes one of what offers a buffer.",
            component=component,
        )
    prepare(array[(slice(0, 0),) * array.ndim], path=f"{component}[{name!r}]")


def _is_array(value: Any) -> bool:
    kind = type(value)
    return (kind.__module__, kind.__qualname__) == ("numpy", "ndarray")


def _fits(present: Any, array: Any) -> bool:
    return bool(
        _is_array(present)
        and present.dtype.str == array.dtype.str
        and present.shape == array.shape
        and present.flags.writeable
        and present.flags.c_contiguous == array.flags.c_contiguous
        and present.flags.f_contiguous == array.flags.f_contiguous
    )


def _equals(present: Any, array: Any) -> bool:
    """Say whether an array is what a capture of it would bring back, bit for bit."""
    if not (_is_array(present) and _is_array(array)):
        return False
    one, other = _layout(present), _layout(array)
    if one != other:
        return False
    before, after = _raw(present), _raw(array)
    return not any(
        (before[start : start + _STRETCH] != after[start : start + _STRETCH]).any()
        for start in range(0, len(after), _STRETCH)
    )


def _layout(array: Any) -> tuple[str, tuple[int, ...], bool]:
    """Return type, shape, and whether it is in Fortran's order: what is stored beside the bytes."""
    return array.dtype.str, array.shape, array.flags.f_contiguous and not array.flags.c_contiguous


def _raw(array: Any) -> Any:
    """Return the bytes of an array in their order, as an array of numbers; copied where needed."""
    plain = array.T if _layout(array)[2] else array
    return plain.ravel().view("u1")


def _size(array: Any) -> int:
    return int(getattr(array, "nbytes", 0))


def _summary(changes: list[Change]) -> str:
    counts = [
        f"{count} {what}"
        for kind, what in (("add", "to add"), ("change", "to change"), ("remove", "to remove"))
        if (count := sum(one.kind == kind for one in changes))
    ]
    return ", ".join(counts) or "nothing to change"


def _faults(payload: Any) -> list[str]:
    if not payload.is_mapping:
        return ["is no dict"]
    keys = [key for key, _ in payload.items()]
    if keys != ["form", "arrays"]:
        return [f"has the keys {quoted(keys)}; form, arrays are expected"]
    form = payload.get("form").value()
    if form != _FORM:
        return [f"is of the form {quoted(form)}; {_FORM} is expected"]
    return [] if payload.get("arrays").is_mapping else ["has no dict as arrays"]


def _arrays_of(payload: Any) -> Iterator[tuple[str, Any]]:
    for name, one in payload.get("arrays").items():
        yield name, one.value()
