"""Threads of a real PostgresSaver, on a real server, come over whole."""

from __future__ import annotations

import json

import pytest

from ckptlog.errors import ArgumentError, CheckpointStorageError, DeniedError
from ckptlog.integrations.langgraph import CkptlogSaver
from ckptlog.integrations.langgraph.migration import import_postgres
from tests.integrations.langgraph import postgres
from tests.integrations.langgraph.test_graph import QUESTION, build
from tests.integrations.langgraph.test_migration import all_of, store, whole  # noqa: F401
from tests.integrations.langgraph.thread import config, put

psycopg = pytest.importorskip(
    "psycopg", reason="psycopg is not installed: no test of PostgresSaver"
)
from langgraph.checkpoint.postgres import PostgresSaver  # noqa: E402
from langgraph.types import Command  # noqa: E402

pytestmark = pytest.mark.skipif(
    postgres.programs() is None, reason="no PostgreSQL here (apt-get install postgresql)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with postgres.server(tmp_path_factory.mktemp("postgres")) as address:
        yield address


@pytest.fixture
def dsn(server, request):
    """A database of its own for each test."""
    name = f"db{abs(hash(request.node.name))}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.removesuffix("/postgres") + f"/{name}"


@pytest.fixture
def old(dsn):
    with PostgresSaver.from_conn_string(dsn) as saver:
        saver.setup()
        graph = build(saver)
        for thread in ("one", "two"):
            graph.invoke(QUESTION, config(thread))
        graph.invoke(Command(resume=True), config("two"))
        put(saver, config("three"), {"n": 1, "list": [1.5, None], "none": None, "text": "x"})
    return dsn


def both(dsn, store):  # noqa: F811
    with PostgresSaver.from_conn_string(dsn) as there:
        return all_of(there), all_of(CkptlogSaver(store))


def test_everything_comes_over_and_goes_on(old, store):  # noqa: F811
    report = whole(import_postgres(store, old))
    assert report.threads == 3
    assert "tester" not in report.source
    there, here = both(old, store)
    assert there == here
    again = whole(import_postgres(store, old))
    assert (again.copied, again.unchanged) == (0, report.copied)
    with PostgresSaver.from_conn_string(old) as saver:
        expected = build(saver).invoke(Command(resume=True), config("one"))["steps"]
        grown = whole(import_postgres(store, old, threads=["one"]))
        assert grown.completed > 0
        assert grown.copied > 0
    found = build(CkptlogSaver(store)).get_state(config("one")).values["steps"]
    assert found == expected
    assert found[-1] == "finished"


def test_a_waiting_thread_resumes_here(old, store):  # noqa: F811
    whole(import_postgres(store, old, threads=["one"]))
    steps = build(CkptlogSaver(store)).invoke(Command(resume=True), config("one"))["steps"]
    assert steps[-1] == "finished"


def test_it_only_reads(old, store):  # noqa: F811
    """A user who may read, and nothing else, is enough."""
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
    reader = old.replace("tester@", "reader@")
    with pytest.raises(DeniedError, match="permission denied"):
        import_postgres(store, reader)
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    whole(import_postgres(store, reader))
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("DROP OWNED BY reader")


def test_sends_of_old_checkpoints_are_found_where_they_stood(old, store):  # noqa: F811
    """Before version 4 of checkpoints, Sends stood among the writes of the parent."""
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute(
            "UPDATE checkpoints SET checkpoint = jsonb_set(checkpoint, '{v}', '3') "
            "WHERE checkpoint_ns = ''"
        )
    whole(import_postgres(store, old))
    with PostgresSaver.from_conn_string(old) as there:
        for found in there.list(None):
            here = CkptlogSaver(store).get_tuple(found.config)
            assert here.checkpoint["channel_values"] == found.checkpoint["channel_values"]
            assert here.checkpoint["channel_versions"] == found.checkpoint["channel_versions"]


def test_damaged_rows_are_told_and_the_rest_comes(old, store):  # noqa: F811
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute(
            "UPDATE checkpoint_blobs SET type = 'pickle' WHERE thread_id = 'one' AND channel = 'messages'"
        )
        connection.execute(
            "UPDATE checkpoints SET checkpoint = %s WHERE thread_id = 'three'", (json.dumps([1]),)
        )
    report = import_postgres(store, old)
    assert report.by_code.keys() == {"import.pickle", "format.malformed"}
    assert report.copied == report.checkpoints - report.failed
    assert CkptlogSaver(store).get_tuple(config("two")) is not None


def test_what_is_no_source(dsn, store):  # noqa: F811
    with pytest.raises(ArgumentError, match="no table checkpoints"):
        import_postgres(store, dsn)
    for wrong in ("host=127.0.0.1 port=1 password=hush", dsn.replace("tester@", "nobody:hush@")):
        with pytest.raises(CheckpointStorageError) as caught:
            import_postgres(store, wrong)
        assert "hush" not in str(caught.value)
    with pytest.raises(ArgumentError, match="cannot be understood"):
        import_postgres(store, "nonsense=1 hush")
