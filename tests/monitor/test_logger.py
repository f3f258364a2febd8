from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import pytest

import ckptlog
from ckptlog import ArgumentError, LoggerFactory, LogLevel
from tests.architecture.tree import ROOT


@pytest.fixture(autouse=True)
def as_before():
    level = logging.getLogger("ckptlog").level
    yield
    LoggerFactory.hide()
    logging.getLogger("ckptlog").setLevel(level)


@pytest.mark.parametrize("level", [LogLevel.DEBUG, "debug", "DEBUG", logging.DEBUG])
def test_the_level_is_that_of_every_logger_of_ours(level):
    LoggerFactory.setGlobalLogLevel(LogLevel.ERROR)
    assert LoggerFactory.set_global_log_level(level) is LogLevel.ERROR
    assert logging.getLogger("ckptlog.service").isEnabledFor(logging.DEBUG)
    assert LoggerFactory.get_global_log_level() is LogLevel.DEBUG


@pytest.mark.parametrize("level", ["loud", 11, None, True])
def test_what_is_no_level_is_refused(level):
    with pytest.raises(ArgumentError):
        LoggerFactory.set_global_log_level(level)


def test_fields_are_in_the_record(caplog):
    log = LoggerFactory.get_logger("upload", worker="w-1").bind(task="t")
    with caplog.at_level(logging.INFO, "ckptlog"):
        log.info("Saved %d", 3, extra={"bytes": 12, "name": "clash"})  # noqa: G101 - on purpose
    (record,) = caplog.records
    assert (record.name, record.message) == ("ckptlog.upload", "Saved 3")
    assert (record.worker, record.task, record.bytes, record.ckptlog_name) == (
        "w-1",
        "t",
        12,
        "clash",
    )


def test_a_handler_is_there_on_request_alone_and_once():
    logger, stream = logging.getLogger("ckptlog"), io.StringIO()
    before = list(logger.handlers)
    LoggerFactory.show(io.StringIO())
    LoggerFactory.show(stream, as_json=True)
    LoggerFactory.set_global_log_level("info")
    assert len(logger.handlers) == len(before) + 1
    try:
        raise ValueError("bad")
    except ValueError:
        LoggerFactory.get_logger("ckptlog.x").exception("Failed", extra={"n": 1})
    line = json.loads(stream.getvalue())
    assert (line["logger"], line["level"], line["message"], line["n"]) == (
        "ckptlog.x",
        "ERROR",
        "Failed",
        1,
    )
    assert "ValueError: bad" in line["exception"]
    LoggerFactory.hide()
    assert logger.handlers == before
    assert logger.propagate
    LoggerFactory.show(stream)
    LoggerFactory.get_logger("x").warning("Shown", extra={"n": 2})
    assert stream.getvalue().endswith("WARNING ckptlog.x: Shown  n=2\n")


class Shy:
    """It does not tell what it is."""

    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_record_is_shown_whatever_its_fields_are(as_json):
    circle = []
    circle.append(circle)
    for field in (Shy(), circle, {(1, 2): 3}):
        stream = io.StringIO()
        LoggerFactory.show(stream, as_json=as_json)
        LoggerFactory.get_logger("x").warning("Shown", extra={"field": field})
        assert "Shown" in stream.getvalue()
        assert not as_json or json.loads(stream.getvalue())["field"]


def test_what_a_program_has_set_is_there_again_behind_a_handler():
    logger = logging.getLogger("ckptlog")
    logger.propagate = False
    try:
        LoggerFactory.show(io.StringIO())
        LoggerFactory.show(io.StringIO())
        LoggerFactory.hide()
        assert not logger.propagate
    finally:
        logger.propagate = True


def test_the_root_logger_is_never_touched():
    program = (
        "import ckptlog, logging; ckptlog.LoggerFactory.set_global_log_level('debug');"
        "ckptlog.LoggerFactory.get_logger('x').debug('m'); ckptlog.LoggerFactory.show().flush();"
        "r = logging.getLogger(); print(r.handlers, r.level)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] 30\n"


def test_names_are_public():
    assert ckptlog.LogLevel.WARN is ckptlog.LogLevel.WARNING
