"""Which tasks are told as interrupted, and with which recovery point."""

from __future__ import annotations

import json

import pytest

from ckptlog import CheckpointManager, CheckpointState
from ckptlog.errors import ArgumentError
from tests.repository.ground import damage_payload  # noqa: F401 - replaced below if it is not there


def names(found):
    return [one.task_id for one in found]
