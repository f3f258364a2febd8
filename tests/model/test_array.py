"""numpy's arrays and scalars: exact, bounded, and never a reason to import numpy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptlog.errors import FormatError, UnstorableError, UnsupportedError
from ckptlog.model.value import decode, lower, prepare
from tests.model.value_cases import GOOD, fingerprint

dtypes = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?")
    | hnp.complex_number_dtypes(sizes=(64, 128), endianness="?")
    | hnp.unicode_string_dtypes(endianness="?", max_len=4)
    | hnp.byte_string_dtypes(max_len=4)
    | hnp.datetime64_dtypes(endianness="?")
    | hnp.timedelta64_dtypes(endianness="?")
)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


class Sub(np.ndarray):
    pass


@given(hnp.arrays(dtypes, shapes), st.sampled_from("CF"))
def test_arrays(array, order):
    array = np.array(array, order=order)
    found = decode(prepare({"a": [array]}).wire)["a"][0]
    assert fingerprint(found) == fingerprint(array)
    assert found.flags.writeable
    assert found.flags.owndata
    assert found.flags.aligned


@given(hnp.arrays(dtypes, shapes))
def test_scalars(array):
    for scalar in array.flat[:3]:
        found = decode(prepare(scalar).wire)
        assert type(found) is type(scalar)
        assert fingerprint(found) == fingerprint(scalar)


def test_views_are_stored_as_what_they_show():
    base = np.arange(24, dtype="<i4").reshape(2, 3, 4)
    for view in (base[:, ::2], base[::-1], base.T, base[0].T, base[..., 1], base[1:1]):
        found = decode(prepare(view).wire)
        assert found.dtype.str == view.dtype.str
        assert np.array_equal(found, view)
        assert found.flags.f_contiguous == (view.flags.f_contiguous or found.ndim <= 1)


def test_the_bits_of_a_nan_stay():
    bits = np.array([0x7FF8000000000001, 0xFFF0000000000ABC], "<u8")
    found = decode(prepare(bits.view("<f8")).wire)
    assert np.array_equal(found.view("<u8"), bits)


def test_nothing_is_shared():
    array = np.zeros(3)
    lowered = lower(array)
    array[0] = 1
    assert decode(prepare(np.zeros(3)).wire)[0] == 0
    assert lowered == lower(np.zeros(3))


REFUSED = {
    "object": np.array([object()]),
    "structured": np.zeros(2, "i4,i4"),
    "void": np.zeros(2, "V3"),
    "long double": np.zeros(2, np.longdouble),
    "long complex": np.zeros(2, np.clongdouble),
    "variable text": np.array(["a"], np.dtypes.StringDType()),
    "metadata": np.zeros(2, np.dtype("i4", metadata={"a": 1})),
    "subclass": np.zeros(2).view(Sub),
    "masked": np.ma.masked_array([1, 2], [True, False]),
    "matrix": np.zeros((2, 2)).view(np.recarray),
    "bool of two": np.array([0, 2], "u1").view("?"),
    "text beyond unicode": np.array([0xFFFFFFFF], "<u4").view("<U1"),
    "long scalar": np.longdouble(1),
    "structured scalar": np.zeros(1, "i4,i4")[0],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(UnstorableError, match=r"^data\.a\[0\] is an? ") as caught:
        lower({"a": [REFUSED[name]]})
    assert caught.value.context["path"] == "data.a[0]"


def test_python_numbers_of_numpy_stay_numpys():
    # numpy.float64 is a float and numpy.str_ a str, and neither may be narrowed to it.
    value = [np.float64(1), 1.0, np.str_("a"), "a", np.bool_(True), True, np.int64(1), 1]
    assert fingerprint(decode(prepare(value).wire)) == fingerprint(value)
    assert len({prepare(item).wire for item in value}) == len(value)


def test_a_key_of_numpys_text_is_refused():
    with pytest.raises(UnstorableError, match=r"key of type numpy\.str_"):
        lower({np.str_("a"): 1})


def test_a_size_is_compared_before_room_is_made():
    wire = b'{"$array":{"dtype":"<f8","shape":[1000000,1000000,1000000],"data":"AAAAAAAAAAA="}}'
    with pytest.raises(FormatError, match="shorter than dtype and shape say"):
        decode(wire)


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_numpy_is_not_imported_by_lowering():
    script = """
import sys
from ckptlog.errors import UnstorableError
from ckptlog.model.value import decode, prepare
decode(prepare({"a": [1.5, (b"x",), {2}]}).wire)
try:
    prepare(object())
except UnstorableError:
    print("numpy" in sys.modules)
"""
    assert run(script) == "False\n"


def test_numpy_half_loaded_is_not_there_yet(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", type(sys)("numpy"))
    with pytest.raises(UnstorableError, match="type object"):
        lower(object())


@pytest.mark.parametrize("name", ["array", "scalar_float"])
def test_numpy_missing_on_reading_says_so(monkeypatch, name):
    wire = prepare(GOOD[name]).wire
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(UnsupportedError, match="numpy is not installed") as caught:
        decode(wire)
    assert "Install numpy" in caught.value.hint
