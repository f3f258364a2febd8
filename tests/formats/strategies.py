"""Values for Hypothesis: everything that the formats can hold."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from ckptlog.formats import branch, chunk, end, node, pack, segment, short_event
from ckptlog.formats.cursor import CursorRecord
from ckptlog.formats.event import INTEGER_MAX
from ckptlog.model.cursor import Cursor
from ckptlog.model.event import Event, PackEntry, Reference, Subject

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
# Items below a link of a branch: with the kind in two bits, one number of 63.
counts = st.integers(0, 2**61 - 1)
positions = st.integers(0, 10**20 - 1).filter(lambda number: number < 2**64)
store_ids = st.binary(min_size=16, max_size=16)
digests = st.binary(min_size=32, max_size=32)

# Text without control characters, with what JSON encoders disagree about.
odd = st.sampled_from(
    ['"', "\\", "/", "\x7f", "\x80", "\u2028", "\u2029", "\ufeff", "é", "🚀", "<"]
)
texts = st.lists(
    odd | st.characters(exclude_categories=["Cs"], min_codepoint=0x20), max_size=12
).map("".join)
numbers = st.integers(0, INTEGER_MAX) | st.sampled_from([0, 1, INTEGER_MAX - 1, INTEGER_MAX])
origins = st.integers(-1, INTEGER_MAX - 1)
references = st.builds(
    Reference, kind=st.sampled_from(["leaf", "list", "tree"]), root=texts, size=numbers
)
ascii_names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F), max_size=8)
facts = st.dictionaries(ascii_names, texts | st.integers(-INTEGER_MAX, INTEGER_MAX), max_size=5)

events = st.builds(
    Event,
    actor=texts,
    cause=texts,
    created=texts,
    data=st.none() | references,
    facts=facts,
    fingerprint=texts,
    id=texts,
    meta=st.none() | references,
    new=numbers,
    origin=origins,
    packs=st.lists(
        st.builds(PackEntry, base=numbers, bytes=numbers, id=store_ids.map(bytes.hex)), max_size=2
    ).map(tuple),
    previous=origins,
    sanitised=numbers,
    schema=st.just(1),
    state=texts,
    step=numbers,
    subject=st.builds(
        Subject, checkpoint=texts, namespace=texts, parent=texts, task=texts, worker=texts
    ),
    time=texts,
    total=numbers,
    type=texts,
)

# What schema 2 holds besides: times from 1970 on, real digests, ids that the program made, parents
# whose ids look like their children's.
times = st.integers(short_event.TIME_US_MIN, short_event.TIME_US_MAX).map(short_event.time_text)
kinds = st.sampled_from(["leaf", "list", "tree", "x"])
hex_roots = digests.map(bytes.hex)
made_ids = st.builds(
    lambda time, rest, blank: f"{time:014x}{rest.hex()}{blank}",
    st.integers(0, 16**14 - 1) | st.integers(1_700_000_000_000_000, 1_700_000_000_001_000),
    st.binary(min_size=5, max_size=5),
    st.sampled_from(["", " "]),
)
likes = st.from_regex("[ab]{0,3}(~[ab]{0,2}){0,2}", fullmatch=True)
short_references = st.none() | st.builds(Reference, kind=kinds, root=hex_roots, size=numbers)
types = texts.filter(lambda text: text[:1] != ".") | st.sampled_from(
    ["checkpoint.created", "checkpoint.updated", "checkpoint.x", "checkpoint.", "checkpoint"]
)


def _shortened(event: Event, **fields) -> Event:
    return msgspec.structs.replace(event, schema=2, **fields)


short_events = st.builds(
    _shortened,
    events,
    created=st.just("") | times,
    data=short_references,
    id=texts | made_ids,
    meta=short_references,
    state=texts | st.sampled_from(["created", "active", ""]),
    subject=st.builds(
        Subject,
        checkpoint=texts | likes,
        namespace=texts,
        parent=texts | likes,
        task=texts,
        worker=texts,
    ),
    time=times,
    type=types,
)

ends = st.builds(
    end.End,
    store_id=store_ids,
    position=u64,
    first=u64,
    generation=u32,
    offset=u64,
    leaf=digests,
    boot=store_ids,
)

cursor_records = st.builds(
    CursorRecord,
    store_id=store_ids,
    name=texts.filter(lambda name: 0 < len(name.encode()) <= 800),
    serial=st.integers(1, 2**64 - 1),
    cursor=st.builds(
        Cursor,
        position=u64,
        leaf=digests,
        container=st.sampled_from(["", "log/00000000000000000042.1.seg"]),
        offset=u64,
    ),
    time_us=u64,
)

segment_headers = st.builds(
    segment.SegmentHeader,
    store_id=store_ids,
    first=u64,
    generation=st.integers(0, 999_999_999),
    previous_first=u64,
    previous_generation=u32,
    previous_length=u64,
    leaf=digests,
    created_us=u64,
)

pack_headers = st.builds(pack.PackHeader, store_id=store_ids, pack_id=store_ids, base=u64)

domains = st.sampled_from([chunk.LEAF, chunk.NODE, chunk.BRANCH])
raw_records = st.builds(
    lambda digest, domain, raw: chunk.Record(digest, 0, 0, 0, domain, 0, len(raw), raw),
    digests,
    domains,
    st.binary(max_size=64),
)
zstd_records = st.builds(
    lambda digest, domain, length, stored: chunk.Record(digest, 1, 0, 0, domain, 0, length, stored),
    digests,
    domains,
    st.integers(0, chunk.RAW_BYTES_MAX),
    st.binary(max_size=64),
)
deltas = st.builds(
    lambda record, base: msgspec.structs.replace(
        record, codec=chunk.CODEC_ZSTD_DELTA, flags=chunk.DELTA, base=base
    ),
    zstd_records,
    digests,
)
records = raw_records | zstd_records | deltas

links = st.one_of(
    st.builds(
        branch.Link, st.just(branch.LEAF), digests, st.integers(1, chunk.RAW_BYTES_MAX), counts
    ),
    st.builds(branch.Link, st.just(branch.BRANCH), digests, st.integers(1, 2**63 - 1), counts),
    st.builds(branch.Link, st.just(branch.BYTES), digests, st.integers(1, 2**63 - 1), st.just(0)),
)


def _without_neighbours(parts: list[branch.Part]) -> list[branch.Part]:
    """Return parts in which no text follows a text."""
    kept: list[branch.Part] = []
    for part in parts:
        if not (kept and type(part) is bytes and type(kept[-1]) is bytes):
            kept.append(part)
    return kept


parts = st.lists(links | st.binary(min_size=1, max_size=300), min_size=1, max_size=20).map(
    _without_neighbours
)

children = st.builds(node.Child, digest=digests, size=st.integers(1, 2**64 - 1))
nodes = st.tuples(
    st.integers(1, node.LEVEL_MAX), st.lists(children, min_size=1, max_size=node.FANOUT_MAX)
)
