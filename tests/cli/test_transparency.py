"""`ckptlog audit head`, `prove`, `verify-proof`, `publish`, `witness`, `fork`; `verify --head`."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

from ckptlog.formats import head, note


@pytest.fixture
def signed(run, filled, tmp_path):
    """Return what a filled store's user has: a runner on it, and files elsewhere."""

    def on(*words):
        return run(*words, "--store", filled.path)

    on("audit", "head", "--out", tmp_path / "head")
    key = str(filled.path / "heads" / "keys")
    return SimpleNamespace(on=on, run=run, path=filled.path, key=key, folder=tmp_path)


def test_init_makes_the_key_and_publishes_it(run, tmp_path):
    made = run("init", tmp_path / "s", "--json").document
    assert note.decode_key(made["key"]).name == f"ckptlog/{made['id']}"
    assert (tmp_path / "s" / "heads" / "keys").read_text() == made["key"] + "\n"
    assert run("init", tmp_path / "s", "--json").document["key"] is None
    assert made["key"] in run("audit", "head", "--store", tmp_path / "s", "--json").out


def test_init_without_a_place_for_keys_makes_a_store_all_the_same(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "file"))
    ran = run("init", tmp_path / "s")
    assert ran.status == 0
    assert "no signing key was made" in ran.err


@pytest.mark.parametrize("other", [["--out", "heads.txt"], ["--latest"]])
def test_a_list_of_heads_is_printed_and_nothing_else(signed, other):
    done = signed.on("audit", "head", "--list", *other)
    assert done.status == 2
    assert other[0] in done.err


def test_head(signed):
    ran = signed.on("audit", "head")
    assert (ran.status, ran.out) == (0, (signed.folder / "head").read_text())
    document = signed.on("audit", "head", "--json").document
    assert document["note"] == ran.out
    assert document["size"] == head.decode(note.decode(ran.out.encode()).text).size
    assert document["key"].startswith(document["origin"])
    assert signed.on("audit", "head", "--latest").out == ran.out
    listed = signed.on("audit", "head", "--list", "--json").lines
    assert [one["size"] for one in listed] == [document["size"]]
    assert document["origin"] in signed.on("audit", "head", "--list").out


def test_nothing_is_signed_by_latest(run, filled):
    ran = run("audit", "head", "--latest", "--store", filled.path, "--json")
    assert (ran.status, ran.error["code"]) == (3, "key.missing")
    assert run("audit", "head", "--list", "--store", filled.path).err.endswith("no head is kept\n")
    assert not (filled.path / "heads").exists()


def test_the_trail_is_what_it_was(signed):
    assert (
        signed.on("audit", "--type", "failed", "--json").lines[0]["action"] == "checkpoint.failed"
    )


def test_an_event_is_proved_and_verified_without_the_store(signed):
    proof = signed.folder / "proof"
    ran = signed.on("audit", "prove", 2, "--out", proof)
    assert (ran.status, "event 2 among" in ran.out) == (0, True)
    assert signed.on("audit", "prove", 2).out == proof.read_text()
    key = signed.on("audit", "head", "--json").document["key"]
    event = signed.on("log", "--json").lines[2]
    shutil.rmtree(signed.path)
    ran = signed.run("audit", "verify-proof", proof, "--vkey", key)
    assert (ran.status, ran.out.startswith("ok: event 2 of ")) == (0, True)
    document = signed.run("audit", "verify-proof", proof, "--vkey", key, "--json").document
    assert (document["ok"], document["position"]) == (True, 2)
    assert document["event"]["subject"]["checkpoint"] == event["subject"]["checkpoint"]


def test_a_proof_that_was_changed_is_refused(signed):
    proof = signed.folder / "proof"
    signed.on("audit", "prove", 2, "--out", proof)
    whole = proof.read_bytes()
    size = signed.on("audit", "head", "--json").document["size"]
    for change, code, status in (
        (whole.replace(b"index 2", b"index 3"), "proof.invalid", 5),
        (whole.replace(f"\n{size}\n".encode(), f"\n{size + 1}\n".encode()), "signature.invalid", 5),
        (whole[:-3], "format.malformed", 5),
        (b"", "format.malformed", 5),
    ):
        proof.write_bytes(change)
        ran = signed.run("audit", "verify-proof", proof, "--vkey", signed.key, "--json")
        assert (ran.status, ran.error["code"], ran.out) == (status, code, "")


def test_a_proof_without_its_event(signed):
    proof = signed.folder / "proof"
    signed.on("audit", "prove", 2, "--out", proof)
    lines = proof.read_bytes().splitlines(keepends=True)
    proof.write_bytes(b"".join(lines[:1] + lines[2:]))
    ran = signed.run("audit", "verify-proof", proof, "--vkey", signed.key, "--json")
    assert ran.error["code"] == "proof.invalid"


def test_a_key_that_is_none(signed):
    ran = signed.run(
        "audit", "verify-proof", signed.folder / "head", "--vkey", "nonsense", "--json"
    )
    assert (ran.status, ran.error["code"]) == (2, "argument.invalid")


def test_an_unchanged_past_is_proved_and_verified(signed):
    old = signed.on("audit", "head", "--json").document["size"]
    signed.on("delete-task", "other")
    proof = signed.folder / "proof"
    signed.on("audit", "head")
    assert signed.on("audit", "prove-consistency", old, "--out", proof).status == 0
    words = ("audit", "verify-proof", proof, "--vkey", signed.key)
    ran = signed.run(*words, "--old", signed.folder / "head")
    assert (ran.status, f"the first {old} of " in ran.out) == (0, True)
    document = signed.run(*words, "--old", signed.folder / "head", "--json").document
    assert (document["kind"], document["old"]) == ("consistency", old)
    assert signed.run(*words, "--json").error["code"] == "argument.invalid"
    signed.on("audit", "head", "--out", signed.folder / "newer")
    ran = signed.run(*words, "--old", signed.folder / "newer", "--json")
    assert ran.error["code"] == "proof.invalid"


def test_positions_that_are_not_there(signed):
    assert signed.on("audit", "prove", 999, "--json").error["code"] == "argument.invalid"
    assert signed.on("audit", "prove-consistency", 999, "--json").status == 2
    assert signed.on("audit", "prove-consistency", 1, 2, "--json").status == 2


def test_verify_takes_heads(signed):
    kept = signed.folder / "head"
    ran = signed.on("verify", "--head", kept)
    assert (ran.status, "Signed heads agree up to" in ran.out) == (0, True)
    kept.write_bytes(kept.read_bytes().replace(b"AAAA", b"AAAB") + b"x")
    ran = signed.on("verify", "--head", kept, "--json")
    assert (ran.status, ran.document["problems"][0]["code"]) == (5, "format.malformed")


def test_a_store_that_was_set_back(signed):
    copy = signed.folder / "copy"
    shutil.copytree(signed.path, copy)
    signed.on("delete-task", "other")
    signed.on("audit", "head", "--out", signed.folder / "newer")
    shutil.rmtree(signed.path)
    shutil.copytree(copy, signed.path)
    ran = signed.on("verify", "--json")
    assert (ran.status, ran.document["problems"][0]["code"]) == (5, "head.rolled_back")
    assert "no repair" in ran.error["hint"]
    ran = signed.on("audit", "head", "--json")
    assert (ran.status, ran.error["code"]) == (5, "head.rolled_back")
    assert "audit fork" in ran.error["hint"]
    former = note.decode_key((signed.path / "heads" / "keys").read_text().strip())
    document = signed.on("audit", "fork", "--json").document
    assert document["former"]["origin"] == former.name != document["origin"]
    assert signed.on("verify").status == 0
    assert signed.on("audit", "head").status == 0
    ran = signed.on("verify", "--head", signed.folder / "newer", "--json")
    assert (ran.status, ran.document["problems"][0]["code"]) == (5, "head.forked")
    kinds = [
        one["action"] for one in signed.on("audit", "--type", "audit.forked", "--json").lines[:1]
    ]
    assert kinds == ["audit.forked"]


def test_fork_in_words(signed):
    ran = signed.on("audit", "fork")
    assert (ran.status, ran.out.startswith("Given up: ckptlog/")) == (0, True)


def test_publish(signed):
    folder = signed.folder / "tiles"
    ran = signed.on("audit", "publish", folder)
    assert (ran.status, "Verifier key: ckptlog/" in ran.out) == (0, True)
    assert (folder / "checkpoint").read_bytes() == (signed.folder / "head").read_bytes()
    again = signed.on("audit", "publish", folder, "--json").document
    assert (again["files"], again["bytes"], again["former"]) == (0, 0, again["size"])
    signed.on("audit", "fork")
    ran = signed.on("audit", "publish", folder, "--json")
    assert (ran.status, ran.error["code"]) == (4, "head.forked")


def test_publish_without_a_head(run, filled, tmp_path):
    ran = run("audit", "publish", tmp_path / "t", "--latest", "--store", filled.path, "--json")
    assert (ran.status, ran.error["code"]) == (3, "key.missing")


def test_a_witness_from_beginning_to_end(signed, monkeypatch):
    proof, answer = signed.folder / "request", signed.folder / "answer"
    signed.on("audit", "prove-consistency", 0, "--out", proof)
    monkeypatch.setenv("CKPTLOG_KEYS", str(signed.folder / "witness"))
    ran = signed.run("audit", "witness", "cosign", proof, "--vkey", signed.key, "--json")
    assert (ran.status, ran.error["code"]) == (3, "key.missing")
    key = signed.run("audit", "witness", "init", "w.example/a").out.strip()
    assert signed.run("audit", "witness", "init", "w.example/a", "--json").document["key"] == key
    ran = signed.run("audit", "witness", "cosign", proof, "--vkey", signed.key)
    answer.write_text(ran.out)
    document = signed.run("audit", "witness", "cosign", proof, "--json")
    assert document.error["code"] == "witness.conflict"
    monkeypatch.undo()
    ran = signed.on("audit", "witness", "accept", answer, "--json")
    assert ran.error["code"] == "signature.invalid"
    assert signed.on("audit", "witness", "list").err.endswith("no witness is trusted\n")
    assert signed.on("audit", "witness", "trust", key).status == 0
    assert signed.on("audit", "witness", "list", "--json").lines == [
        {"witness": "w.example/a", "key": key}
    ]
    assert "w.example/a" in signed.on("audit", "witness", "list").out
    ran = signed.on("audit", "witness", "accept", answer)
    assert (ran.status, "cosigned by w.example/a" in ran.out) == (0, True)
    signed.on("audit", "prove", 1, "--out", proof, "--force")
    words = ("audit", "verify-proof", proof, "--vkey", signed.key, "--witness", key)
    assert "cosigned by w.example/a at 20" in signed.run(*words).out
    assert signed.run(*words, "--json").document["witnesses"] == ["w.example/a"]
    ran = signed.run(*words, "--witnesses-min", 2, "--json")
    assert (ran.status, ran.error["code"]) == (2, "argument.invalid")
    assert signed.on("audit", "witness", "distrust", "w.example/a").status == 0
    ran = signed.on("audit", "witness", "distrust", "w.example/a", "--json")
    assert (ran.status, ran.error["code"], ran.out) == (3, "key.missing", "")
    assert "witness list" in ran.error["hint"]


def test_a_proof_that_no_witness_saw(signed):
    proof = signed.folder / "proof"
    signed.on("audit", "prove", 1, "--out", proof)
    key = signed.run("audit", "witness", "init", "someone", "--json").document["key"]
    words = ("audit", "verify-proof", proof, "--vkey", signed.key, "--witness", key, "--json")
    assert signed.run(*words).error["code"] == "signature.invalid"


def test_a_logs_key_is_no_witness(signed):
    ran = signed.on("audit", "witness", "trust", signed.key, "--json")
    assert (ran.status, ran.error["code"]) == (2, "argument.invalid")


@pytest.mark.parametrize("data", [b"\xff\n", b"text\n", b"", "— w AAAAAAAA".encode()])
def test_an_answer_that_is_none(signed, monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    ran = signed.on("audit", "witness", "accept", "-", "--json")
    assert (ran.status, json.loads(ran.err)["code"]) == (5, "format.malformed")


@pytest.mark.parametrize("name", ["no", "head/below", "."])
def test_a_file_that_is_not_there(signed, name):
    path = signed.folder / name
    for words in (
        ("audit", "verify-proof", path, "--vkey", signed.key),
        ("audit", "witness", "cosign", path),
        ("verify", "--head", path),
        ("verify", "--head", signed.folder / "head", "--head", path),
    ):
        ran = signed.on(*words, "--json")
        assert (ran.status, ran.error["code"], ran.out) == (2, "argument.invalid", ""), words
        assert str(path) in ran.error["message"]
    whole = signed.folder / "proof"
    signed.on("audit", "prove-consistency", 1, "--out", whole)
    ran = signed.on("audit", "verify-proof", whole, "--vkey", signed.key, "--old", path, "--json")
    assert (ran.status, ran.error["context"]["argument"]) == (2, "old")


@pytest.mark.parametrize(
    "words",
    [("audit", "head"), ("audit", "prove", 2), ("audit", "prove-consistency", 1)],
)
def test_out_writes_over_nothing(signed, words):
    """Neither a file without --force, nor what belongs to a store; and nothing is signed for it."""
    kept = signed.folder / "kept"
    kept.write_text("mine")
    signed.on("delete-task", "other")
    heads = signed.on("audit", "head", "--list", "--json").out
    segment = next((signed.path / "log").glob("*.seg"))
    before = segment.read_bytes()
    for place, more in ((kept, ()), (segment, ("--force",)), (signed.path / "new", ())):
        ran = signed.on(*words, "--out", place, *more, "--json")
        assert (ran.status, ran.error["code"], ran.out) == (2, "argument.invalid", "")
        assert ran.error["context"]["argument"] == "out"
    assert (kept.read_text(), segment.read_bytes()) == ("mine", before)
    assert signed.on("audit", "head", "--list", "--json").out == heads
    assert signed.on(*words, "--out", kept, "--force").status == 0
    assert kept.read_text() != "mine"


def test_places_inside_a_store_are_refused_by_every_command(signed, filled):
    inside = signed.path / "views" / "x"
    for words in (
        ("export", "archive", "job", "--to", inside),
        ("export", "archive", "job", "--force", "--to", signed.path / "store.json"),
        ("export", "history", inside),
        ("restore", filled.completed, "--out", inside),
        ("rewind", "--out", inside),
        ("recover", "--to", inside),
        ("watch", "--once", "--exec", "false", "--consumer", "c", "--dead-letters", inside),
    ):
        ran = signed.on(*words, "--json")
        assert (ran.status, ran.error["code"]) == (2, "argument.invalid"), words
        assert "store or a backup" in ran.error["message"], words
    assert not inside.exists()
    assert signed.on("verify").status == 0


def test_publish_into_a_store_or_onto_a_file_signs_nothing(signed):
    signed.on("delete-task", "other")
    plain = signed.folder / "plain"
    plain.write_text("mine")
    heads = signed.on("audit", "head", "--list", "--json").out
    for place in (signed.path, signed.path / "views" / "tiles", signed.folder, plain):
        ran = signed.on("audit", "publish", place, "--json")
        assert (ran.status, ran.error["code"], ran.out) == (2, "argument.invalid", "")
        assert ran.error["context"]["argument"] == "folder"
    assert plain.read_text() == "mine"
    assert signed.on("audit", "head", "--list", "--json").out == heads


def test_a_named_pipe_is_not_waited_for(signed):
    pipe, proof = signed.folder / "pipe", signed.folder / "proof"
    os.mkfifo(pipe)
    signed.on("audit", "prove-consistency", 1, "--out", proof)
    for words in (
        ("audit", "verify-proof", pipe, "--vkey", signed.key),
        ("audit", "verify-proof", proof, "--vkey", signed.key, "--old", pipe),
        ("audit", "verify-proof", proof, "--vkey", pipe),
        ("audit", "witness", "cosign", pipe),
        ("audit", "witness", "accept", pipe),
        ("verify", "--head", pipe),
    ):
        ran = signed.on(*words, "--json")
        assert (ran.status, ran.error["code"], ran.out) == (2, "argument.invalid", ""), words


@pytest.mark.parametrize("place", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_a_pipe_that_was_given_open_is_read(signed, place):
    proof = signed.folder / "proof"
    signed.on("audit", "prove", 2, "--out", proof)
    reader, writer = os.pipe()
    try:
        os.write(writer, proof.read_bytes())
        os.close(writer)
        named = place.format(reader)
        if not os.path.exists(named):
            pytest.skip("there is no such folder of descriptors here")
        ran = signed.run("audit", "verify-proof", named, "--vkey", signed.key)
        assert (ran.status, ran.out.startswith("ok: event 2 of ")) == (0, True)
    finally:
        os.close(reader)


@pytest.mark.parametrize("name", ["bad name", "", "a+b", "a\tb"])
def test_a_name_that_no_witness_may_have(signed, monkeypatch, name):
    monkeypatch.setenv("CKPTLOG_KEYS", str(signed.folder / "witness"))
    ran = signed.run("audit", "witness", "init", name, "--json")
    assert (ran.status, ran.error["code"], ran.out) == (2, "argument.invalid", "")
    assert ran.error["context"]["argument"] == "name"
    assert signed.run("audit", "witness", "init", "w.example/a").status == 0


def test_options_that_mean_nothing_are_refused(signed):
    proof = signed.folder / "proof"
    signed.on("audit", "prove", 2, "--out", proof)
    verify_proof = ("audit", "verify-proof", proof, "--vkey", signed.key)
    for argument, words in (
        ("old", (*verify_proof, "--old", signed.folder / "head")),
        ("share", ("verify", "--share", ".5")),
        ("share", ("verify", "--level", "full", "--share", ".5")),
        ("seed", ("verify", "--level", "structure", "--seed", 0)),
    ):
        ran = signed.on(*words, "--json")
        assert (ran.status, ran.error["code"], ran.out) == (2, "argument.invalid", ""), words
        assert ran.error["context"]["argument"] == argument
        assert f"--{argument}" in ran.error["hint"]
    ran = signed.on(*verify_proof, "--witnesses-min", 1, "--json")
    assert (ran.status, "--witness KEY" in ran.error["hint"]) == (2, True)
    assert signed.on("verify", "--level", "sampled", "--share", ".5", "--seed", 1).status == 0
