"""Make the golden vectors of the formats: `tests/vectors/formats/<format>/<name>.json`.

Vectors are made once and then fixed: they are what later versions must still read. So this script
adds what is missing and never changes what is there. Where the code now makes other bytes than a
vector holds, it says so and fails: that is a change of the format, to be undone, or to get a new
version beside the old one. (To replace a vector on purpose, delete its file first.)

What stands in a vector is said in tools/vectors/vector.py.

Usage: make_format_vectors.py [FOLDER]    exit status 0: all there and as the code makes them
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.vectors import (  # noqa: E402
    archive_vectors,
    content_vectors,
    cursor_vectors,
    envelope_vectors,
    history_vectors,
    settled_vectors,
)
from tools.vectors.vector import Document  # noqa: E402

MAKERS: Final[dict[str, Callable[[], dict[str, Document]]]] = {
    "archive": archive_vectors.archives,
    "backup": archive_vectors.manifests,
    "branch": content_vectors.branches,
    "chunk": content_vectors.chunks,
    "cursor": cursor_vectors.cursors,
    "end": envelope_vectors.ends,
    "event": content_vectors.events,
    "frame": envelope_vectors.frames,
    "head": history_vectors.heads,
    "merkle": history_vectors.trees,
    "node": content_vectors.nodes,
    "note": history_vectors.notes,
    "pack": envelope_vectors.packs,
    "segment": envelope_vectors.segments,
    "settled": settled_vectors.settled_segments,
    "store": content_vectors.stores,
    "tile": history_vectors.tiles,
}


def main(folder: Path) -> int:
    """Write the vectors that are missing; report those that differ, and leave them."""
    differ, written = [], 0
    for kind, make in MAKERS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, document in make().items():
            path = folder / kind / f"{name}.json"
            text = json.dumps(document, indent=1, sort_keys=True) + "\n"
            if not path.exists():
                path.write_text(text, encoding="utf-8")
                written += 1
            elif path.read_text(encoding="utf-8") != text:
                differ.append(path)
    for path in differ:
        print(f"{path}: the code makes other bytes now; left as it is", file=sys.stderr)
    print(f"{written} written, {len(differ)} differ", file=sys.stderr)
    return 1 if differ else 0


if __name__ == "__main__":
    default = ROOT / "tests" / "vectors" / "formats"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
