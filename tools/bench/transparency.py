"""Signed history: appending with heads signed beside it and without, and proofs in a long log.

Appending, one thread and a commit each, and in batches of 100: with the tree kept up and a head
signed every `--interval` seconds in the same process, and without. Proofs in a log of `--events`
events: made (the event read, hashes from the tree, checked) and verified (parsed, the signature,
the hashes), beside pymerkle's tree of the same events in memory.
Usage: tools/bench/run transparency [--events N] [--rounds N] [--writes N] [--interval S]
    [--proofs N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import time
from pathlib import Path
from typing import Any

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.crypto.signature import verify_note
from ckptlog.formats import head as formats
from ckptlog.formats import merkle
from ckptlog.formats.head import InclusionProof
from ckptlog.formats.note import VerifierKey
from ckptlog.model.leaf import leaf_hash
from tools.bench import measure
from tools.bench.follow import fill
from tools.bench.measure import Contestant

_BATCH = 100
_PEER_PROOFS = 2
_serial = itertools.count()


# --- appending ------------------------------------------------------------------------------------


def writer(folder: Path, writes: int, interval_s: float | None, *, batch: int) -> Contestant:
    """Return a contestant that appends to a store of its own, which stays open."""
    kind = "batches of 100" if batch > 1 else "one by one"
    how = "no tree" if interval_s is None else f"a head every {interval_s:g} s"
    store = ckptlog.open(folder / f"w{next(_serial)}", create=True, head_interval_s=interval_s)
    manager = CheckpointManager(store=store)

    def one(number: int) -> None:
        manager.create_checkpoint(f"t{number % 50}", "Title", 1, data=_data(number))

    def many(number: int) -> None:
        with manager.batch() as work:
            for place in range(_BATCH):
                work.create_checkpoint(f"t{place % 50}", "Title", 1, data=_data(number + place))

    calls = list(range(0, writes, batch))
    return Contestant(
        f"{kind}, {how}", lambda: measure.timed(many if batch > 1 else one, calls, each=batch)
    )


def _data(number: int) -> dict[str, Any]:
    return {"number": number, "text": f"{random.getrandbits(240):060x}"}


def appending(folder: Path, options: argparse.Namespace) -> None:
    """Print appending with and without."""
    for batch, writes in ((1, options.writes), (_BATCH, options.writes * 10)):
        alone = writer(folder, writes, None, batch=batch)
        signed = writer(folder, writes, options.interval, batch=batch)
        measure.alternate([alone, signed], options.rounds)
        measure.heading(f"Appending, {'batches of 100' if batch > 1 else 'a commit each'}")
        measure.table([alone, signed])
        measure.judge_ratio("with / without", measure.rate_ratios(signed, alone), least=0.9)


# --- proofs ---------------------------------------------------------------------------------------


def _verified(data: bytes, key: VerifierKey) -> None:
    """Do what `ckptlog audit verify-proof` does."""
    proof = formats.decode_proof(data)
    head = formats.decode(proof.note.text)
    verify_note(proof.note, key)
    if not isinstance(proof, InclusionProof) or proof.extra is None:
        raise TypeError(data)
    leaf = leaf_hash(proof.extra)
    merkle.verify_inclusion(leaf, proof.position, head.size, proof.path, root=head.root)


def proofs(root: Path, options: argparse.Namespace) -> None:
    """Print proofs made and verified, ours and pymerkle's."""
    chance = random.Random(7)  # noqa: S311 - the same positions each time
    with ckptlog.open(root) as store:
        notary = store.notary
        begin = time.perf_counter()
        signed = notary.sign()
        first_s = time.perf_counter() - begin
        size, key = signed.head.size, notary.key
        if key is None:
            raise ValueError(root)
        measure.progress("pymerkle's tree")
        peer, peer_s = _peer(notary)
        positions = [chance.randrange(size) for _ in range(options.proofs)]
        few = positions[:_PEER_PROOFS]  # it hashes a good part of its tree for each
        made = {n: formats.encode_inclusion(notary.prove(n)) for n in positions}
        theirs = {n: peer.prove_inclusion(n + 1, size) for n in few}

        def ours(position: int) -> bytes:
            return formats.encode_inclusion(notary.prove(position))

        make = _contestant("make, ckptlog", ours, positions)
        check = _contestant("verify, ckptlog", lambda n: _verified(made[n], key), positions)
        peer_make = _contestant("make, pymerkle", lambda n: peer.prove_inclusion(n + 1, size), few)
        peer_check = _contestant(
            "verify, pymerkle", _checks(peer, theirs, signed.head.root), few * 100
        )
        measure.alternate([make, check, peer_make, peer_check], options.rounds)
        measure.heading(f"Proofs in a log of {size:,} events")
        measure.table([make, peer_make, check, peer_check])
        for name, one in (("made", make), ("verified", check)):
            measure.judge(f"{name}, p50", one.p50_s * 1e3, most=5, unit=" ms")
            p99_ms = measure.percentile(one.durations_s, 0.99) * 1e3
            measure.judge(f"{name}, p99", p99_ms, most=5, unit=" ms")
        measure.judge("first head: the whole log read and hashed", first_s, unit=" s")
        measure.judge("pymerkle: the same events hashed", peer_s, unit=" s")


def _contestant(name: str, act: Any, arguments: list[int]) -> Contestant:
    return Contestant(name, lambda: measure.timed(act, arguments))


def _peer(notary: Any) -> tuple[Any, float]:
    """Return pymerkle's tree of the events, and the seconds that it took, reading excluded."""
    import pymerkle

    tree = pymerkle.InmemoryTree(algorithm="sha256")
    spent_s = 0.0
    for run in notary.tree.runs(0, notary.tree.end()):
        begin = time.perf_counter()
        for entry in run.entries:
            tree.append_entry(entry)
        spent_s += time.perf_counter() - begin
    return tree, spent_s


def _checks(peer: Any, proofs_of: dict[int, Any], root: bytes) -> Any:
    import pymerkle

    leaves = {number: peer.get_leaf(number + 1) for number in proofs_of}

    def check(number: int) -> None:
        pymerkle.verify_inclusion(leaves[number], root, proofs_of[number])

    return check


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Signed history.")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--writes", type=int, default=2_000)
    parser.add_argument("--interval", type=float, default=0.5)
    parser.add_argument("--proofs", type=int, default=300)
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        os.environ["CKPTLOG_KEYS"] = str(folder / "keys")
        measure.machine(folder, "cryptography", "pymerkle")
        appending(folder, options)
        root = folder / "store"
        fill(root, options.events)
        proofs(root, options)


if __name__ == "__main__":
    main()
