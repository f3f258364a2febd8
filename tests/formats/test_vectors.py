"""The golden vectors are complete, are what the code makes, and are never overwritten."""

from __future__ import annotations

import pytest

from tests.formats.vectors import FOLDER, load
from tools.vectors import make_format_vectors

KINDS = sorted(make_format_vectors.MAKERS)


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.json")
    }


def test_the_script_makes_exactly_the_stored_vectors(tmp_path):
    assert make_format_vectors.main(tmp_path) == 0
    assert files(tmp_path) == files(FOLDER)


def test_a_stored_vector_is_never_overwritten(tmp_path, capsys):
    make_format_vectors.main(tmp_path)
    changed = tmp_path / "frame" / "good-commit.json"
    changed.write_text("{}")
    gone = tmp_path / "end" / "bad-cut.json"
    gone.unlink()
    assert make_format_vectors.main(tmp_path) == 1
    assert changed.read_text() == "{}"
    assert gone.exists()
    message = capsys.readouterr().err
    assert "good-commit.json: the code makes other bytes now" in message
    assert "1 written, 1 differ" in message


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_has_good_and_bad_vectors(kind):
    documents = load(kind)
    assert any(name.startswith("good-") for name in documents)
    assert any(name.startswith("bad-") for name in documents)
    for name, document in documents.items():
        assert ("error" in document) == name.startswith("bad-"), name
        assert ("hex" in document) != ("text" in document), name
        assert document["about"]
        assert document.get("says", "words")


def test_no_folder_without_a_maker():
    assert sorted(path.name for path in FOLDER.iterdir()) == KINDS
