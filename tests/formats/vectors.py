"""Reads the golden vectors; tools/vectors/vector.py says what stands in one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckptlog.errors import CheckpointCorruptionError, CheckpointError, CheckpointStorageError
from tools.vectors.vector import Document, plain

FOLDER = Path(__file__).parents[1] / "vectors" / "formats"


def load(kind: str, part: str | None = None) -> dict[str, Document]:
    """Return the vectors of a format (of one part of it) by name."""
    paths = sorted((FOLDER / kind).glob("*.json"))
    documents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    if part is None:
        return documents
    return {name: it for name, it in documents.items() if it["context"]["part"] == part}


def every(kind: str, part: str | None = None) -> pytest.MarkDecorator:
    """Return the mark that runs a test with each vector of a format."""
    documents = load(kind, part)
    assert documents, f"no vectors of {kind}"
    return pytest.mark.parametrize("vector", documents.values(), ids=list(documents))


def bytes_of(vector: Document) -> bytes:
    return vector["text"].encode() if "text" in vector else bytes.fromhex(vector["hex"])


def check(
    vector: Document, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes] | None
) -> Any:
    """Decode a vector, compare, encode again byte for byte; return the value, None if refused."""
    data = bytes_of(vector)
    if "error" in vector:
        with pytest.raises(CheckpointError) as caught:
            decode(data)
        assert caught.value.code == vector["error"]
        assert vector["says"] in caught.value.message
        assert isinstance(caught.value, CheckpointCorruptionError | CheckpointStorageError)
        return None
    value = decode(data)
    assert plain(value) == vector["value"]
    if encode is not None:
        assert encode(value) == data
    return value
