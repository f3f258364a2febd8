"""The payload tree: what the page says, canonical, and cheap where little changed."""

from __future__ import annotations

import json
import random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ckptlog.blobs import payload, tree
from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.tree import grow
from ckptlog.errors import UnstorableError
from ckptlog.formats import branch, chunk
from ckptlog.formats.json_text import Bounds
from ckptlog.formats.store import Chunker as Parameters
from ckptlog.model import value as values
from tests.blobs.sample import noise
from tools.vectors.tree_vectors import Planter, Rules

CODEC = Codec()
CHUNKER = Chunker(Parameters())
SMALL_CHUNKER = Chunker(Parameters(min=64, mean=256, max=1024))
SMALL_RULES = Rules(120, 48, 64, 150, 2, 3, 4, 40)


def text_of(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.fixture
def small(monkeypatch):
    """Make trees of short values."""
    set_rules(monkeypatch, SMALL_RULES)


def set_rules(monkeypatch, rules):
    for module in (tree, payload):
        monkeypatch.setattr(module, "INLINE_MAX", rules.inline_max)
    monkeypatch.setattr(tree, "BOUNDS", Bounds(rules.least, rules.mean, rules.most))
    monkeypatch.setattr(tree, "FANOUT_MIN", rules.fanout_min)
    monkeypatch.setattr(tree, "FANOUT_MEAN", rules.fanout_mean)
    monkeypatch.setattr(tree, "FANOUT_MAX", rules.fanout_max)
    monkeypatch.setattr(tree, "_ARRAY_HEAD_BYTES", rules.head_max)


# A fixture of one function is set up once for all examples: that is what is wanted here.
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def read_back(found, reference, older=None):
    chunks = {name: one.raw for name, one in found.chunks.items()}
    return payload.assemble(
        reference, lambda name, _: chunks[name] if name in chunks else older[name]
    )


def reference_of(found, text):
    kind = payload.LEAF_KIND if found.is_leaf else payload.TREE_KIND
    return payload.Reference(kind, found.root.hex(), len(text))


# --- values ---------------------------------------------------------------------------------------

texts = st.text(max_size=30) | st.integers(0, 400).map(lambda size: noise(size).hex())
raws = st.integers(0, 900).map(lambda size: noise(size, b"raw"))
arrays = st.integers(0, 100).map(lambda size: {"dtype": "<f8", "shape": [size]})
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
nested = st.recursive(
    leaves | raws,
    lambda inner: (
        st.lists(inner, max_size=12)
        | st.dictionaries(st.text(max_size=12), inner, max_size=12)
        | st.builds(lambda item, times: [item] * times, inner, st.integers(0, 40))
    ),
    max_leaves=40,
)


def wire_of(value):
    return values.prepare({"value": value}, path="data").wire


def planted(text, chunker=SMALL_CHUNKER, rules=SMALL_RULES):
    return Planter(chunker.cut, rules).plant(text)


# --- the page -------------------------------------------------------------------------------------


@many
@given(value=nested)
def test_a_tree_is_what_the_page_says(small, value):
    text = wire_of(value)
    found, expected = grow(text, SMALL_CHUNKER), planted(text)
    assert found.root == expected.root
    assert found.is_leaf == (expected.kind == "leaf")
    assert {name: (one.domain, one.raw) for name, one in found.chunks.items()} == expected.chunks
    assert found.digests == set(expected.chunks)
    assert all(chunk.digest_of(one.domain, one.raw) == name for name, one in found.chunks.items())


@pytest.mark.unmeasured
@settings(deadline=None, max_examples=8)
@given(value=nested, times=st.integers(1, 100))
def test_a_tree_of_real_size_is_what_the_page_says(value, times):
    text = wire_of([[value, number] for number in range(times)])
    found, expected = grow(text, CHUNKER), planted(text, CHUNKER, Rules())
    assert (found.root, found.digests) == (expected.root, set(expected.chunks))


@many
@given(value=nested)
@example({"$bytes": "AAAA" * 100})
@example({"$array": {"dtype": "<f8", "shape": [9], "data": "A" * 400}})
def test_round_trip_of_small_trees(small, value):
    text = wire_of(value)

    def encode(name, one):
        return CODEC.encode(one.domain, name, one.raw)

    draft = payload.plant(text, SMALL_CHUNKER, encode)
    records = dict(draft.fresh)
    read = lambda name, domain: CODEC.raw(records[name], name, domain=domain)  # noqa: E731
    assert payload.assemble(draft.reference, read) == text
    assert payload.digests_of(draft.reference, read) == draft.digests == set(records)
    assert values.decode(payload.assemble(draft.reference, read)) == {"value": value}


@given(value=st.recursive(leaves, lambda inner: st.lists(inner, max_size=4), max_leaves=9))
def test_plant_takes_short_values_as_they_are(value):
    text = text_of(value)
    draft = payload.plant(text, CHUNKER, lambda _, one: one.raw)
    assert draft.reference == payload.Reference(
        "leaf", chunk.digest_of(chunk.LEAF, text).hex(), len(text)
    )
    assert grow(text, CHUNKER).root.hex() == draft.reference.root


# --- canonical ------------------------------------------------------------------------------------


class Version(NamedTuple):
    text: bytes
    found: tree.Tree


def edited(random_, value):  # noqa: PLR0911 - a table of edits
    """Return a value with one edit somewhere."""
    if type(value) is list:
        act = random_.randrange(6)
        at = random_.randrange(len(value) + 1)
        if act == 0 or not value:
            return [*value[:at], random_.choice(FRESH)(random_), *value[at:]]
        at = min(at, len(value) - 1)
        if act == 1:
            return value[:at] + value[at + 1 :]
        if act == 2:
            return value[-random_.randrange(1, 60) :]
        if act == 3:
            return value + value[at : at + 9]
        return [*value[:at], edited(random_, value[at]), *value[at + 1 :]]
    if type(value) is dict and value:
        name = random_.choice(list(value))
        changed = dict(value)
        act = random_.randrange(4)
        if act == 0:
            del changed[name]
        elif act == 1:
            changed[f"{name}+"] = random_.choice(FRESH)(random_)
        else:
            changed[name] = edited(random_, value[name])
        return changed
    if type(value) is str:
        at = random_.randrange(len(value) + 1)
        return value[:at] + random_.choice(["x", '"', "\\", "[", "é,", ""]) + value[at:]
    return random_.choice(FRESH)(random_)


FRESH = [
    lambda random_: random_.randrange(1000),
    lambda random_: "t" * random_.randrange(300),
    lambda random_: noise(random_.randrange(300), b"%d" % random_.randrange(50)).hex(),
    lambda random_: noise(random_.randrange(600), b"%d" % random_.randrange(9)),
    lambda random_: [random_.randrange(9) for _ in range(random_.randrange(80))],
    lambda random_: {f"k{n}": noise(9, b"%d" % n).hex() for n in range(random_.randrange(40))},
    lambda random_: [[["deep" * random_.randrange(60)]] * 3] * random_.randrange(9),
]


def check_against_memos(random_, chunker, start, edits):
    """Grow versions of a value, each with the memo of some other one and some known digests."""
    value, versions = start, []
    for _ in range(edits):
        value = edited(random_, random_.choice([value, value, start]))
        text = wire_of(value)
        fresh = grow(text, chunker)
        for _ in range(3):
            memo = random_.choice(versions).found.memo if versions else None
            # What is known is known with everything below it: payloads that are stored whole.
            stored = random_.sample(versions, random_.randrange(len(versions) + 1))
            known = frozenset().union(*(one.found.digests for one in stored))
            found = grow(text, chunker, memo=memo, known=known)
            assert (found.root, found.is_leaf) == (fresh.root, fresh.is_leaf)
            assert found.digests == fresh.digests
            assert found.digests - known <= set(found.chunks) <= found.digests
            assert not known & set(found.chunks)
            for name, one in found.chunks.items():
                assert (one.domain, one.raw) == (fresh.chunks[name].domain, fresh.chunks[name].raw)
                if one.base is not None:
                    domains = (chunk.LEAF, chunk.BRANCH)
                    assert one.base.digest in {
                        chunk.digest_of(domain, one.base.raw) for domain in domains
                    }
        # The memo of a tree that was made with a memo is as good as any.
        versions.append(Version(text, found))


@pytest.mark.unmeasured
@settings(many, max_examples=5)
@given(seed=st.integers(0, 2**32), value=nested)
def test_any_memo_gives_the_same_tree(small, seed, value):
    check_against_memos(random.Random(seed), SMALL_CHUNKER, [value, [value] * 4], 8)


@pytest.mark.unmeasured
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_any_memo_gives_the_same_tree_of_real_size(seed):
    random_ = random.Random(seed)
    start = {
        "messages": [{"n": n, "text": noise(60, b"%d" % n).hex()} for n in range(400)],
        "keys": {f"k{n}": n for n in range(3000)},
        "text": noise(20_000).hex(),
        "raw": noise(30_000),
        "deep": [[{"n": n, "text": "t" * 50} for n in range(300)] for _ in range(3)],
    }
    check_against_memos(random_, CHUNKER, start, 6)


@pytest.mark.thorough
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), value=nested)
def test_any_memo_gives_the_same_tree_at_length(small, seed, value):
    check_against_memos(random.Random(seed), SMALL_CHUNKER, [value, [value] * 4], 20)


@pytest.mark.unmeasured
@settings(many, max_examples=25)
@given(value=nested)
def test_what_is_known_needs_no_chunk(small, value):
    text = wire_of(value)
    first = grow(text, SMALL_CHUNKER)
    half = frozenset(sorted(first.digests)[::2])
    assert set(grow(text, SMALL_CHUNKER, known=half).chunks) == first.digests - half
    again = grow(text, SMALL_CHUNKER, memo=first.memo, known=first.digests)
    assert (again.root, again.digests, again.chunks) == (first.root, first.digests, {})


def test_a_group_is_not_taken_where_its_last_item_goes_on():
    text = text_of({"numbers": list(range(30_000))})
    old = grow(text, CHUNKER)
    (strip,) = (one for strips in old.memo.strips.values() for one in strips)
    for end in (strip.begin + end for end in strip.ends):
        longer = text[:end] + b"7" + text[end:]
        found = grow(longer, CHUNKER, memo=old.memo, known=old.digests)
        assert found.digests == grow(longer, CHUNKER).digests


def test_an_array_head_lies_in_one_group_with_its_data():
    """Else a group that is taken from a memo could stand behind another head."""
    assert tree.BOUNDS.least > tree._ARRAY_HEAD_BYTES


# --- injective ------------------------------------------------------------------------------------

SCALARS = [0, 1, -1, 1.0, True, False, None, "1", "", 0.0, -0.0, 1e300, "true", b"", b"1", (), []]


def changed_type(scalar):
    """Return values that are equal or alike, and of another type or sign."""
    alike = {
        "int": [float, str, bool, lambda one: [one], lambda one: (one,)],
        "float": [
            str,
            lambda one: -one,
            lambda one: [one],
            lambda one: int(one) if abs(one) < 1e9 else 0,
        ],
        "bool": [int, float, str],
        "str": [
            lambda one: one.encode(errors="replace"),
            lambda one: one + "\0",
            lambda one: [one],
        ],
        "bytes": [bytearray, lambda one: one.hex(), lambda one: one + b"\0"],
        "list": [tuple, lambda one: [*one, None], lambda one: {"": one}],
        "tuple": [list, lambda one: (*one, None)],
        "NoneType": [lambda _: False, lambda _: 0, lambda _: "", lambda _: "null"],
    }
    return alike[type(scalar).__name__]


def paths_of(value, path=()):
    """Return the paths of everything that is no dict."""
    if type(value) is dict:
        return [found for name, one in value.items() for found in paths_of(one, (*path, name))]
    if type(value) in {list, tuple} and value:
        inner = [found for at, one in enumerate(value) for found in paths_of(one, (*path, at))]
        return [path, *inner] if path else inner
    return [path]


def changed_at(value, path, change):
    if not path:
        return change(value)
    if type(value) is dict:
        return {
            name: changed_at(one, path[1:], change) if name == path[0] else one
            for name, one in value.items()
        }
    items = [
        changed_at(one, path[1:], change) if at == path[0] else one for at, one in enumerate(value)
    ]
    return type(value)(items)


def state(random_):
    return {
        "scalars": [random_.choice(SCALARS) for _ in range(120)],
        "messages": [
            {"n": n, "text": "m" * random_.randrange(60), "flags": [n % 2 == 0, n / 2, (n,)]}
            for n in range(60)
        ],
        "keys": {f"k{n}": random_.choice(SCALARS) for n in range(100)},
        "text": noise(700).hex(),
        "raw": noise(900),
    }


def check_changes(random_, count):
    value = state(random_)
    before = grow(wire_of(value), SMALL_CHUNKER)
    paths = paths_of(value)
    for _ in range(count):
        path = random_.choice(paths)
        seen = []

        def change(one, seen=seen):
            other = random_.choice(changed_type(one))(one)
            seen.append((one, other))
            return other

        after = changed_at(value, path, change)
        ((old, new),) = seen
        if type(old) is type(new) and repr(old) == repr(new):
            continue  # -0.0 of 0 and the like: no change at all
        found = grow(wire_of(after), SMALL_CHUNKER, memo=before.memo, known=before.digests)
        assert found.root != before.root, (path, seen)


def test_every_change_of_one_place_changes_the_root(small):
    check_changes(random.Random(1), 400)


@pytest.mark.thorough
def test_ten_thousand_changes_of_one_place_change_the_root(small):
    check_changes(random.Random(2), 10_000)


def test_the_order_of_keys_is_part_of_the_value(small):
    pairs = [(f"k{n}", n) for n in range(80)]
    assert (
        grow(wire_of(dict(pairs)), SMALL_CHUNKER).root
        != grow(wire_of(dict(pairs[::-1])), SMALL_CHUNKER).root
    )


# --- cost -----------------------------------------------------------------------------------------


def messages(start, stop):
    return [
        {"type": "human" if n % 2 else "ai", "id": f"m{n}", "content": noise(240, b"%d" % n).hex()}
        for n in range(start, stop)
    ]


def cost(before, after):
    """Return (chunks, bytes) that are made for a value after another."""
    old = grow(text_of(before), CHUNKER)
    found = grow(text_of(after), CHUNKER, memo=old.memo, known=old.digests)
    return len(found.chunks), sum(len(one.raw) for one in found.chunks.values())


LONG = messages(0, 1500)
WHOLE = len(text_of(LONG))


@pytest.mark.parametrize("at", [0, 1, 700, 1498, 1499])
@pytest.mark.parametrize(
    "edit",
    [
        lambda at: [*LONG[:at], {"new": "message"}, *LONG[at:]],
        lambda at: LONG[:at] + LONG[at + 1 :],
        lambda at: [*LONG[:at], {**LONG[at], "content": "changed"}, *LONG[at + 1 :]],
    ],
    ids=["insert", "remove", "change"],
)
def test_an_edit_of_a_long_list_makes_few_chunks(at, edit):
    chunks, size = cost({"messages": LONG}, {"messages": edit(at)})
    assert chunks <= 6
    assert size <= 40_000 < WHOLE / 10


def test_appending_makes_one_chunk_and_now_and_then_a_group():
    made_chunks = made_bytes = 0
    old = grow(text_of({"messages": LONG[:500]}), CHUNKER)
    for count in range(501, 1001):
        text = text_of({"messages": LONG[:count]})
        found = grow(text, CHUNKER, memo=old.memo, known=old.digests)
        assert len(found.chunks) <= 4
        made_chunks += len(found.chunks)
        made_bytes += sum(len(one.raw) for one in found.chunks.values())
        old = found
    assert made_chunks <= 500 * 1.6
    assert made_bytes <= 500 * 12_000


def test_truncating_to_the_last_fifty_makes_one_or_two_groups():
    kept = [*LONG[-49:], {"new": "message"}]
    chunks, _ = cost({"messages": LONG[-50:]}, {"messages": kept})
    assert chunks <= 4
    chunks, size = cost({"messages": LONG}, {"messages": LONG[-50:]})
    assert chunks <= 4
    assert size <= 40_000


def test_a_long_text_that_grows():
    text = noise(500_000).hex()
    chunks, size = cost({"text": text}, {"text": text + "one more line"})
    assert chunks <= 5
    assert size <= 30_000


def test_one_of_many_keys():
    keys = {f"key{n}": noise(9, b"%d" % n).hex() for n in range(5000)}
    chunks, size = cost(keys, keys | {"key2500": "changed"})
    assert chunks <= 5
    assert size <= 40_000


def test_objects_that_are_equal_and_new_make_nothing():
    copied = json.loads(text_of({"messages": LONG}))
    assert cost({"messages": LONG}, copied) == (0, 0)


def test_branches_in_turn_each_cost_what_they_change():
    common = LONG[:1000]
    left, right = [*common, {"side": "left"}], [*common, {"side": "right"}]
    known = grow(text_of(left), CHUNKER).digests | grow(text_of(right), CHUNKER).digests
    memo = grow(text_of(left), CHUNKER).memo
    for turn in range(10):
        side = left if turn % 2 else right
        side.append({"turn": turn})
        found = grow(text_of(side), CHUNKER, memo=memo, known=known)
        assert len(found.chunks) <= 3
        known |= found.digests
        memo = found.memo


def test_moved_lists_are_found_again():
    parts = {f"part{n}": messages(n * 200, n * 200 + 200) for n in range(4)}
    shifted = {"new": "n" * 3000, **parts}
    chunks, size = cost(parts, shifted)
    assert chunks <= 8
    assert size <= 60_000


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "array", "fortran"])
def test_bytes_and_arrays_are_stored_without_base64(kind):
    raw = noise(400_000)
    if kind in {"array", "fortran"}:
        numpy = pytest.importorskip("numpy")
        value = numpy.frombuffer(raw, dtype="<f8").reshape(100, 500)
        value = numpy.asfortranarray(value) if kind == "fortran" else value
        raw = value.tobytes("A")
    else:
        value = raw if kind == "bytes" else bytearray(raw)
    text = wire_of(value)
    found = grow(text, CHUNKER)
    stored = sum(len(one.raw) for one in found.chunks.values())
    assert stored < 420_000 < len(text)
    pieces = b"".join(one.raw for one in found.chunks.values() if one.domain == chunk.LEAF)
    assert raw[10_000:10_500] in pieces or raw[11_000:11_200] in pieces
    assert read_back(found, reference_of(found, text)) == text


@pytest.mark.parametrize(
    "content",
    ["A" * 30_001, "A" * 30_001 + "=", "A" * 30_000 + "B===", "-" * 30_000, "AB==" * 9000],
)
def test_what_is_not_canonical_base64_stays_text(content):
    for value in ({"$bytes": content}, {"$array": {"dtype": "<f8", "shape": [1], "data": content}}):
        text = text_of(value)
        found = grow(text, CHUNKER)
        assert found.root == planted(text, CHUNKER, Rules()).root
        assert read_back(found, reference_of(found, text)) == text


# --- limits ---------------------------------------------------------------------------------------


def test_levels_are_bounded(small, monkeypatch):
    text = text_of(list(range(3000)))
    assert grow(text, SMALL_CHUNKER)
    monkeypatch.setattr(tree, "LEVEL_MAX", 2)
    with pytest.raises(UnstorableError, match="deeper than 2"):
        grow(text, SMALL_CHUNKER)


def test_a_value_that_is_nested_too_deep_is_refused():
    text = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(UnstorableError, match="nested too deep"):
        payload.plant(text, CHUNKER, lambda _, one: one.raw)


@pytest.mark.parametrize("depth", [5, 100])
def test_open_ends_in_open_ends_stay_short(depth):
    """However deep lists lie in one another, what stays open in a chunk is bounded."""
    value = messages(0, 10)
    for _ in range(depth):
        value = [*messages(0, 12), value]
    found = grow(text_of(value), CHUNKER)
    assert max(len(one.raw) for one in found.chunks.values()) < 64 * 1024


@settings(deadline=None)
@given(
    text=st.binary(min_size=1, max_size=300)
    | st.lists(st.sampled_from([*b'[]{}",:\\a1']), min_size=1, max_size=300).map(bytes)
)
def test_text_that_is_not_sound_comes_to_an_end(text):
    """Ours always is: this is about what a mistake elsewhere could do."""
    with pytest.MonkeyPatch.context() as patch:
        set_rules(patch, Rules(8, 4, 4, 12, 2, 3, 4, 2))
        try:
            found = grow(text, SMALL_CHUNKER)
        except (ValueError, IndexError, UnstorableError):
            return
        assert read_back(found, reference_of(found, text)) == text


@pytest.mark.parametrize("behind", [b"]", b"1", b" ", b"[]"])
def test_what_goes_on_behind_its_value_is_refused(behind):
    with pytest.raises(ValueError, match="goes on behind"):
        grow(text_of(LONG) + behind, CHUNKER)


def test_a_memo_says_what_it_takes():
    found = grow(text_of(LONG), CHUNKER)
    memo = found.memo
    raws_size = sum(map(len, memo.raws.values()))
    assert memo.cost >= len(memo.text) + raws_size + 300 * len(memo.digests)
    (strip,) = (one for strips in memo.strips.values() for one in strips)
    assert memo.base(strip, len(strip.groups)) is None
    assert all(
        chunk.digest_of(0, memo.base(strip, index).raw) == group.link.digest
        for index, group in enumerate(strip.groups)
        if group.link.kind == branch.LEAF
    )
