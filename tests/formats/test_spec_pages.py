"""The pages in specs/ agree with the code: byte tables, limits, the diagram, the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckptlog.blobs import difference, tree
from ckptlog.errors import (
    FormatError,
    LogCorruptionError,
    MissingBlobError,
    NotAStoreError,
    UnsupportedError,
)
from ckptlog.formats import (
    branch,
    chunk,
    cursor,
    end,
    event,
    frame,
    node,
    pack,
    segment,
    settled,
    store,
)
from ckptlog.model.event import Event, PackEntry, Reference, Subject
from ckptlog.model.state import EVENT_OF_STATE, TRANSITIONS, CheckpointState, mermaid

SPECS = Path(__file__).parents[2] / "specs"
FORMAT_PAGES = [
    "branch",
    "chunk",
    "cursor",
    "end",
    "event",
    "frame",
    "node",
    "pack",
    "segment",
    "settled",
    "store",
]
Table = list[list[str]]


def page(name: str) -> str:
    return (SPECS / f"{name}.md").read_text(encoding="utf-8")


def tables(name: str, heading: str) -> list[Table]:
    """Return the rows of each table of a page whose header begins with `heading`."""
    found: list[Table] = []
    inside = False
    for line in page(name).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == heading:
            inside = True
            found.append([])
        elif inside and set(line) - set("|- "):
            found[-1].append(cells)
    return found


def code_words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def fixed_size(rows: Table) -> int:
    """Check that offsets follow from sizes; return where the first open-ended field begins."""
    at = 0
    for offset, size, _ in rows:
        assert offset == str(at), f"{rows}: offset {offset}, {at} is expected"
        if not size.isdecimal():
            return at
        at += int(size)
    return at


@pytest.mark.parametrize(
    ("name", "index", "size"),
    [
        ("frame", 0, frame.HEADER_BYTES),
        ("segment", 0, segment.HEADER_FRAME_BYTES - frame.HEADER_BYTES),
        ("event", 0, event.PREFIX_BYTES),
        ("chunk", 0, chunk.HEADER_BYTES),
        ("node", 0, 1),
        ("node", 1, len(node.encode(1, [node.Child(bytes(32), 1)])) - 1),
        ("pack", 0, pack.HEADER_FRAME_BYTES - frame.HEADER_BYTES),
        ("pack", 1, 44),
        ("pack", 2, pack.TRAILER_FRAME_BYTES - frame.HEADER_BYTES),
        ("settled", 0, settled.BODY_BYTES_MIN),
        ("settled", 1, 20),
        ("settled", 2, 28),
        ("settled", 3, settled.TRAILER_FRAME_BYTES - frame.HEADER_BYTES),
        ("end", 0, end.BYTES),
        ("cursor", 0, cursor.BYTES),
    ],
)
def test_byte_tables_are_without_gaps_and_as_long_as_in_the_code(name, index, size):
    assert fixed_size(tables(name, "offset")[index]) == size


def test_the_frame_page_lists_the_kinds_and_their_limits():
    units = {"KiB": 1024, "MiB": 1024 * 1024}
    (rows,) = tables("frame", "kind")
    assert {int(row[0]) for row in rows} == frame.KINDS
    for number, name, _, limit, _ in rows:
        assert getattr(frame, name) == int(number)
        amount, unit = limit.split()
        bound = int(amount) * units[unit]
        header = b"CK" + bytes([int(number), 0])
        for size, expected in ((bound, bound), (bound + 1, None)):
            raw = header + size.to_bytes(4, "little") + bytes(8)
            assert frame.body_length(raw) == expected


def test_the_event_page_lists_the_fields():
    rows = {row[0]: row[1] for row in tables("event", "object")[0]}
    assert rows["event"].split(", ") == list(Event.__struct_fields__)
    assert rows["subject"].split(", ") == list(Subject.__struct_fields__)
    for row, kind in (("data, meta", Reference), ("packs, each", PackEntry)):
        assert all(f"{name}" in rows[row] for name in kind.__struct_fields__)


def test_the_store_page_lists_fields_and_features():
    fields, features = tables("store", "field")[0], tables("store", "feature")[0]
    assert [row[0] for row in fields] == list(store.StoreInfo.__struct_fields__)
    assert tuple(code_words(row[0])[0] for row in features) == (
        tuple(sorted({*store.FEATURES, store.EVENTS_LONG}))
    )


def test_the_node_page_has_the_numbers_of_the_code():
    text = page("node")
    assert f"at least {node.FANOUT_MIN} are in it" in text
    assert f"divisible by\n{node.FANOUT_MEAN}" in text
    assert f"1 to {node.FANOUT_MAX}, in the order" in text
    assert f"at most {node.LEVEL_MAX} " in text


def test_the_payload_page_has_the_numbers_of_the_code():
    text = " ".join(page("payload").split())
    least, mean, most = tree.BOUNDS
    assert f"A value of {tree.INLINE_MAX:,} bytes or less" in text
    assert f"together weigh {tree.INLINE_MAX:,} or less" in text
    assert f"the group weighs {least:,} or more" in text
    assert f"`number mod {mean} < weight of the item`, or the group weighs {most:,} or" in text
    assert f"A link weighs {branch.LINK_WEIGHT};" in text
    assert f"when it has {tree.FANOUT_MIN} or more" in text
    assert f"divisible by {tree.FANOUT_MEAN}, at the latest with {tree.FANOUT_MAX}" in text
    assert f"At most {tree.LEVEL_MAX} levels" in text
    chunks = " ".join(page("chunk").split())
    assert f"more than {difference.DEPTH_MAX} differences away" in chunks


@pytest.mark.parametrize("name", FORMAT_PAGES)
def test_every_format_page_says_how_a_reader_refuses_and_what_is_reserved(name):
    (rows,) = tables(name, "what stands there")
    codes = {code for row in rows for code in code_words(row[1])}
    known = {FormatError.code, UnsupportedError.code, NotAStoreError.code, "blob.corrupt"}
    known |= {MissingBlobError.code, LogCorruptionError.code}
    assert FormatError.code in codes
    assert codes <= known
    assert "\n## Versioning, reserved\n" in page(name)
    assert f"`ckptlog/formats/{name}.py`" in page(name)
    assert f"`tests/vectors/formats/{name}/`" in page(name).replace("\n", " ")
    assert len(page(name).splitlines()) <= 70


def states_page() -> str:
    """Return specs/states.md from the heading `The diagram` on, as the table of states makes it."""
    names = [state.value for state in CheckpointState]
    rows = [
        [f"`{before.value}`"]
        + [
            f"`{EVENT_OF_STATE[after]}`" if after in TRANSITIONS[before] else "refused"
            for after in CheckpointState
        ]
        + ["`checkpoint.deleted`"]
        for before in CheckpointState
    ]
    rows.insert(0, ["(none)", f"`{EVENT_OF_STATE[CheckpointState.CREATED]}`"] + ["refused"] * 5)
    header = ["from \\ to", *names, "(deleted)"]
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"## The diagram\n\n```mermaid\n{mermaid()}```\n\n## The table\n\n{table}\n"


def test_the_page_of_states_is_generated_from_the_table():
    text = page("states")
    assert text[text.index("## The diagram") :] == states_page(), (
        f"specs/states.md must end in:\n\n{states_page()}"
    )


def test_the_index_names_every_page_once_and_nothing_else():
    linked = re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| .", page("README"), re.MULTILINE)
    pages = sorted(path.relative_to(SPECS).as_posix() for path in SPECS.rglob("*.md"))
    pages.remove("README.md")
    assert sorted(linked) == pages


def test_links_between_pages_lead_somewhere():
    broken = [
        f"{path.name}: {target}"
        for path in SPECS.rglob("*.md")
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert not broken
