"""A lock that outlives a call is free in a forked child, or somebody sees to it."""

from __future__ import annotations

import ast

from tests.architecture.tree import python_files

_KINDS = {"Lock", "RLock", "Condition", "Semaphore"}
_SEEN_TO = {"free_in_child", "renewed_in_child"}
_STORE = "a child opens the store anew, and what it holds (Store._compose)"
_PARENT = "a child is refused, or has another one, before it would take it"
_CALL = "of one call, whose threads are the parent's"
# Whose locks nobody needs to see to.
_OTHERWISE = {
    "log/hold.py Hold": _STORE,
    "log/committer.py Committer": _STORE,
    "blobs/index.py ChunkIndex": _STORE,
    "blobs/cache.py Cache": _STORE,
    "repository/analytics.py Analytics": _STORE,
    "repository/collected.py CollectedPast": _STORE,
    "repository/indexer.py Indexer": _STORE,
    "repository/keeper.py Keeper": _STORE,
    "repository/file_view.py FileView": _PARENT,
    "service/service.py CheckpointService": _PARENT,
    "service/runner.py Runner": _PARENT,
    "storage/mutex.py Mutex": _PARENT,
    "watch/subscription.py Subscription": _PARENT,
    "watch/aside.py Aside": _PARENT,
    "watch/hint.py LogHint": _PARENT,
    "log/committer.py Job": _CALL,
    "capture/offspring.py Child": _CALL,
    "capture/writing.py Room": _CALL,
    "capture/directory/prefetch.py _Source": _CALL,
    "repository/inspection.py Bases": _CALL,
    "repository/planting.py Planting": _CALL,
    "service/command/relay.py Tail": _CALL,
}


def test_every_lock_is_seen_to_in_a_forked_child():
    found = {}
    for path, tree in python_files("ckptlog"):
        if path == "ckptlog/storage/fork.py":  # makes the free ones
            continue
        imported = {
            one.asname or one.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "threading"
            for one in node.names
        }
        kinds = _KINDS & imported
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        rest = [node for node in tree.body if node not in classes]
        for name, nodes in [("", rest), *((one.name, [one]) for one in classes)]:
            called = set().union(*(_called(node) for node in nodes))
            if called & kinds or called & {f"threading.{kind}" for kind in _KINDS}:
                where = f"{path.removeprefix('ckptlog/')} {name}"
                found[where] = bool(called & _SEEN_TO)
    unseen = {name for name, is_seen_to in found.items() if not is_seen_to}
    assert unseen == set(_OTHERWISE), "free_in_child, or say above why not"


def _called(tree):
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
