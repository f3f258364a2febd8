"""LangGraph's own conformance suite, every test of it."""

from __future__ import annotations

import asyncio
import tempfile

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate

from ckptlog.integrations.langgraph import CkptlogSaver

TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


@pytest.mark.parametrize("options", [{}, {"durability": "interval"}], ids=["commit", "interval"])
def test_all_of_the_official_tests_pass(options):
    @checkpointer_test(name="CkptlogSaver")
    async def saver():
        with tempfile.TemporaryDirectory() as folder:
            async with CkptlogSaver.open(f"{folder}/store", **options) as opened:
                yield opened

    report = asyncio.run(validate(saver))
    failures = [failure for found in report.results.values() for failure in found.failures]
    assert failures == []
    assert {name: found.tests_passed for name, found in report.results.items()} == TESTS
    assert sum(TESTS.values()) == 81
    assert report.passed_all()
