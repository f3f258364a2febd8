"""numpy's arrays and scalars as the contents of `$array` and `$scalar` (specs/values.md).

This is the one door to numpy. Lowering never imports it: a value can be numpy's only when the user
has loaded it. Lifting imports it when it is installed.

Invariants:
- dtype, byte order, shape and memory order (C or Fortran) come back exactly; a scalar's byte
  order is the machine's, so its wire is always little-endian.
- No object, structured or long double dtype: they hold pointers, or depend on the machine.
- Shape and size are compared before anything of that size is made.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from ckptlog.errors import UnsupportedError
from ckptlog.model.scalar import decode_base64, encode_base64, exactly
from ckptlog.model.tag import Refusal

_DIMENSIONS_MAX: Final = 64  # numpy's own limit
_CODE_POINT_MAX: Final = 0x10FFFF
_DTYPE: Final = re.compile(
    r"\|[biu]1|[<>][iu][248]|[<>]f[248]|[<>]c(?:8|16)|\|S[1-9]\d{0,8}|[<>]U[1-9]\d{0,7}"
    r"|[<>][Mm]8(?:\[(?:[1-9]\d{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_ARRAY_FIELDS: Final = (["dtype", "shape", "data"], ["dtype", "shape", "order", "data"])


def lower_numpy(value: Any) -> dict[str, Any] | None:
    """Return the tag of a numpy array or scalar; None when value is neither.

    Raises:
        Refusal: It is numpy's, but cannot be stored exactly.
    """
    numpy = sys.modules.get("numpy")
    array_kind = getattr(numpy, "ndarray", None)
    if array_kind is None:  # not loaded, or another thread is loading it
        return None
    if type(value) is array_kind:
        return {"$array": _lower_array(numpy, value)}
    if isinstance(value, array_kind):
        raise Refusal(
            f"is a {type(value).__qualname__}, a subclass of numpy's array",
            "Store numpy.asarray(value) and what else it holds.",
        )
    if isinstance(value, getattr(numpy, "generic", ())):
        return {"$scalar": _lower_scalar(numpy, value)}
    return None


def split_array(value: Any, *, is_asked: bool = False) -> tuple[dict[str, Any], Any] | None:
    """Return an array's content without its data, and its bytes; None where it is no plain array.

    For who cuts the bytes without making text of them; what is refused is refused by `lower_numpy`.

    Args:
        is_asked: Only say whether it is one: the bytes are none.
    """
    numpy = sys.modules.get("numpy")
    if type(value) is not getattr(numpy, "ndarray", None) or value.dtype.kind not in "iufc":
        return None
    if not _DTYPE.fullmatch(value.dtype.str) or value.dtype.metadata:
        return None
    is_fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    content: dict[str, Any] = {"dtype": value.dtype.str, "shape": list(value.shape)}
    if is_fortran:
        content["order"] = "F"
    if is_asked:
        return content, b""
    plain = value.T if is_fortran else value
    if not plain.flags.c_contiguous:
        return content, plain.tobytes()
    return content, plain.reshape(-1).view("u1").data


def _lower_array(numpy: Any, value: Any) -> dict[str, Any]:
    dtype = value.dtype
    if not _DTYPE.fullmatch(dtype.str) or dtype.metadata:
        raise Refusal(
            f"is an array of dtype {str(dtype)[:80]}, which cannot be stored exactly",
            "Convert it with astype() to bool, int, float, complex, str, bytes or datetime64.",
        )
    is_fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    raw = value.tobytes(order="F" if is_fortran else "C")
    if fault := _fault(numpy, dtype, raw):
        raise Refusal(f"is an array {fault}")
    content: dict[str, Any] = {"dtype": dtype.str, "shape": list(value.shape)}
    if is_fortran:
        content["order"] = "F"
    content["data"] = encode_base64(raw)
    return content


def _fault(numpy: Any, dtype: Any, raw: bytes | memoryview) -> str | None:
    """Say what no array may hold, though its bytes could: numpy would fail on it much later."""
    if dtype.kind == "b" and bytes(raw).translate(None, b"\0\1"):
        return "of bool with a byte that is neither 0 nor 1"
    if dtype.kind == "U" and raw:
        points = numpy.frombuffer(raw, dtype=dtype.byteorder.replace("=", "") + "u4")
        if int(points.max()) > _CODE_POINT_MAX:
            return "of text with a number that is no code point"
    return None


def _lower_scalar(numpy: Any, value: Any) -> dict[str, Any]:
    kind = type(value)
    if kind is numpy.str_:
        return {"dtype": "U", "data": str.__str__(value)}
    if kind is numpy.bytes_:
        return {"dtype": "S", "data": encode_base64(bytes(value))}
    dtype = value.dtype.newbyteorder("<")
    if kind is not value.dtype.type or not _DTYPE.fullmatch(dtype.str):
        raise Refusal(
            f"is a numpy scalar of type {kind.__qualname__}, which cannot be stored exactly",
            "Convert it with item(), or to float64 or complex128.",
        )
    return {"dtype": dtype.str, "data": encode_base64(numpy.asarray(value, dtype).tobytes())}


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        raise UnsupportedError(
            "The value holds a numpy array or scalar, and numpy is not installed here.",
            hint="Install numpy and read it again.",
        ) from error


def _lift_dtype(numpy: Any, content: Any) -> Any:
    text = exactly(str, content)
    if not _DTYPE.fullmatch(text):
        raise ValueError("the dtype is none of those that are stored")
    dtype = numpy.dtype(text)
    if dtype.str != text:
        raise ValueError("the dtype is not spelled as numpy spells it")
    return dtype


def _lift_shape(content: Any) -> tuple[int, ...]:
    shape = tuple(exactly(int, length) for length in exactly(list, content))
    if len(shape) > _DIMENSIONS_MAX or any(length < 0 for length in shape):
        raise ValueError("the shape is impossible")
    return shape


def lift_array(content: Any, pieces: Sequence[bytes] | None = None) -> Any:
    """Return a new, writable array of the content of `$array`.

    Args:
        pieces: Its bytes, where they do not stand in the content.
    """
    facts = exactly(dict, content)
    if list(facts) not in _ARRAY_FIELDS or facts.get("order", "F") != "F":
        raise ValueError("it has other fields than dtype, shape, order F and data")
    numpy = _numpy()
    dtype, shape = _lift_dtype(numpy, facts["dtype"]), _lift_shape(facts["shape"])
    size = math.prod(shape) * dtype.itemsize
    if pieces is None:
        # 4 characters stand for 3 bytes: a size that cannot fit is refused before decoding.
        if size > len(exactly(str, facts["data"])):
            raise ValueError("the data is shorter than dtype and shape say")
        pieces = (decode_base64(facts["data"]),)
    if sum(map(len, pieces)) != size:
        raise ValueError("the data has another size than dtype and shape say")
    array = numpy.empty(shape, dtype, order=facts.get("order", "C"))
    if size:
        raw = memoryview(array.reshape(-1, order="A").view("u1"))  # the array's own bytes
        end = 0
        for piece in pieces:
            raw[end : (end := end + len(piece))] = piece
        if fault := _fault(numpy, dtype, raw):
            raise ValueError(f"it is an array {fault}")
    if "order" in facts and array.flags.c_contiguous:
        raise ValueError("order F is said of an array that is in order C too")
    return array


def lift_scalar(content: Any) -> Any:
    """Return the numpy scalar of the content of `$scalar`."""
    facts = exactly(dict, content)
    if list(facts) != ["dtype", "data"]:
        raise ValueError("it has other fields than dtype and data")
    numpy = _numpy()
    if facts["dtype"] == "U":
        return numpy.str_(exactly(str, facts["data"]))
    raw = decode_base64(facts["data"])
    if facts["dtype"] == "S":
        return numpy.bytes_(raw)
    dtype = _lift_dtype(numpy, facts["dtype"])
    if dtype.kind in "SU" or dtype.str.startswith(">") or len(raw) != dtype.itemsize:
        raise ValueError("the data has another size or byte order than a scalar of this dtype")
    if fault := _fault(numpy, dtype, raw):
        raise ValueError(f"it is {fault}")
    return numpy.ndarray((), dtype, raw)[()]
