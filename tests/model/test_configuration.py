"""Settings are checked where they are set, by name and by range, with a way out in the message."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import SettingsError
from ckptlog.model.configuration import FIELDS, CheckpointConfiguration
from ckptlog.model.requirement import CheckpointPerformanceRequirements

# The fields of the specification; the two switches are off until they exist.
SPECIFIED = {
    "storage_dir": ".taskmaster/checkpoints",
    "max_checkpoint_size_mb": 10,
    "max_storage_size_gb": 100,
    "max_concurrent_operations": 100,
    "operation_timeout_seconds": 30,
    "cache_size_mb": 100,
    "cleanup_interval_hours": 24,
    "max_checkpoint_age_days": 30,
    "encryption_enabled": False,
    "encryption_key": None,
    "access_control_enabled": False,
}


def test_defaults():
    facts = CheckpointConfiguration().to_dict()
    assert facts == SPECIFIED | {
        "retention": None,
        "durability": "commit",
        "interval_s": 0.05,
        "sanitise": True,
        "sanitise_extra_keys": [],
        "sanitise_keep_keys": [],
        "sanitise_extra_patterns": [],
        "actor": None,
        "compression_level": 1,
        "head_interval_s": 0,
    }
    assert set(facts) == FIELDS


def test_the_nine_constants():
    constants = {
        name: value
        for name, value in vars(CheckpointPerformanceRequirements).items()
        if name.isupper()
    }
    assert constants == {
        "MAX_CHECKPOINT_CREATION_TIME_MS": 100,
        "MAX_CHECKPOINT_UPDATE_TIME_MS": 50,
        "MAX_CHECKPOINT_QUERY_TIME_MS": 10,
        "MIN_CHECKPOINTS_PER_SECOND": 100,
        "MAX_CONCURRENT_CHECKPOINTS": 1000,
        "MAX_CHECKPOINT_SIZE_MB": 10,
        "MAX_TOTAL_STORAGE_GB": 100,
        "MAX_MEMORY_USAGE_MB": 500,
        "MAX_CACHE_SIZE_MB": 100,
    }


def test_derived_sizes():
    configuration = CheckpointConfiguration(
        max_checkpoint_size_mb=0.5, max_storage_size_gb=2, cache_size_mb=0
    )
    assert configuration.checkpoint_size_bytes_max == 524_288
    assert configuration.storage_size_bytes_max == 2_147_483_648
    assert configuration.cache_size_bytes == 0


def test_levels_of_compression():
    levels = [CheckpointConfiguration(compression_level=n).zstd_level for n in range(1, 10)]
    assert levels == [1, 2, 3, 5, 7, 9, 12, 15, 19]


BAD = [
    ("max_checkpoint_size_mb", 0, "a number from 0.001 to 4,096 MiB"),
    ("max_checkpoint_size_mb", "10", "it must be a number"),
    ("max_checkpoint_size_mb", True, "it must be a number"),
    ("max_checkpoint_size_mb", float("nan"), "it must be a number"),
    ("max_storage_size_gb", -1, "a number from 0.001"),
    ("max_storage_size_gb", float("inf"), "it must be a number"),
    ("max_concurrent_operations", 0, "a whole number from 1"),
    ("max_concurrent_operations", 1.0, "a whole number from 1"),
    ("operation_timeout_seconds", -0.1, "a number from 0"),
    ("operation_timeout_seconds", None, "a number from 0"),
    ("cache_size_mb", -1, "a number from 0"),
    ("cleanup_interval_hours", -1, "a number from 0"),
    ("max_checkpoint_age_days", 0, "a number from 0.001"),
    ("compression_level", 0, "a whole number from 1 to 9"),
    ("compression_level", 10, "a whole number from 1 to 9"),
    ("interval_s", 0, "a number from 0.001 to 60 seconds"),
    ("head_interval_s", -1, "a number from 0 to 31,536,000 seconds"),
    ("durability", "none", "it must be commit or interval"),
    ("durability", None, "it must be commit or interval"),
    ("sanitise", 1, "it must be True or False"),
    ("encryption_enabled", "yes", "it must be True or False"),
    ("sanitise_extra_keys", "pin", "it must be a list of texts (str)"),
    ("sanitise_extra_keys", None, "it must be a list of texts (str)"),
    ("sanitise_extra_keys", ["pin", 1], "a list of texts (str); 1 is none"),
    ("sanitise_extra_keys", ["12"], "has '12', which has no letter"),
    ("sanitise_keep_keys", {"pin"}, "it must be a list of texts (str)"),
    ("sanitise_keep_keys", ["--"], "has '--', which has no letter"),
    ("sanitise_extra_patterns", "x", "it must be a list of texts (str)"),
    ("sanitise_extra_patterns", [b"x"], "a list of texts (str); b'x' is none"),
    ("sanitise_extra_patterns", ["("], "has '(', which is no regular expression: missing )"),
    ("sanitise_extra_patterns", ["a{99999999999999999999}"], "which is no regular expression"),
    ("storage_dir", "", "a path, not empty"),
    ("storage_dir", None, "a path, not empty"),
    ("storage_dir", b"x", "a path, not empty"),
    ("storage_dir", "a\0b", "a path, not empty"),
    ("actor", "", "actor is empty"),
    ("actor", 1, "actor is of type int"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_bad_values(name, value, message):
    configuration = CheckpointConfiguration()
    before = configuration.to_dict()
    for attempt in (
        lambda: CheckpointConfiguration(**{name: value}),
        lambda: setattr(configuration, name, value),
        lambda: dataclasses.replace(configuration, **{name: value}),
        lambda: CheckpointConfiguration.from_dict({name: value}),
    ):
        with pytest.raises(SettingsError) as caught:
            attempt()
        assert caught.value.message.startswith(name)
        assert message in caught.value.message
        assert caught.value.context["argument"] == name
    assert configuration.to_dict() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("encryption_enabled", True), ("encryption_key", "k"), ("access_control_enabled", True)],
)
def test_what_this_version_lacks_is_refused(name, value):
    with pytest.raises(SettingsError, match=f"{name} is set, and this version") as caught:
        CheckpointConfiguration(**{name: value})
    assert "'k'" not in str(caught.value)


def test_an_attribute_spelled_wrong():
    with pytest.raises(SettingsError, match="Did you mean cache_size_mb") as caught:
        CheckpointConfiguration().cache_size = 3  # type: ignore[attr-defined]
    assert "no setting 'cache_size'" in caught.value.message


class TestFromDict:
    def test_snake_and_camel_case(self):
        configuration = CheckpointConfiguration.from_dict(
            {
                "storageDir": "x",
                "maxCheckpointSizeMb": 5,
                "maxStorageSizeGB": 6,
                "cleanup_interval_hours": 0,
                "compressionLevel": 9,
                "encryptionEnabled": False,
                "intervalS": 1,
            }
        )
        assert configuration == CheckpointConfiguration(
            storage_dir="x",
            max_checkpoint_size_mb=5,
            max_storage_size_gb=6,
            cleanup_interval_hours=0,
            compression_level=9,
            interval_s=1,
        )

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("max_checkpoint_size", "Did you mean max_checkpoint_size_mb?"),
            ("cacheSize", "Did you mean cache_size_mb?"),
            ("durable", "Did you mean durability?"),
            ("sanitize", "Did you mean sanitise?"),
            ("zzz", "Settings are: access_control_enabled, actor,"),
            (1, "Settings are: "),
            ("intervalSeconds", "automatic checkpointing service"),
            ("maxCheckpoints", "automatic checkpointing service"),
            ("storage", "automatic checkpointing service"),
        ],
    )
    def test_unknown_names(self, name, hint):
        with pytest.raises(SettingsError) as caught:
            CheckpointConfiguration.from_dict({name: 1})
        assert caught.value.message == f"There is no setting {str(name)!r}."
        assert hint in caught.value.hint

    def test_what_is_no_dict(self):
        with pytest.raises(SettingsError, match="Settings are a dict, not of type list"):
            CheckpointConfiguration.from_dict([])  # type: ignore[arg-type]

    def test_a_setting_given_twice(self):
        with pytest.raises(SettingsError, match="cache_size_mb is given twice"):
            CheckpointConfiguration.from_dict({"cache_size_mb": 1, "cacheSizeMb": 1})

    @given(st.fixed_dictionaries({}, optional={"cache_size_mb": st.integers(0, 9)}))
    def test_it_comes_back_through_json(self, settings):
        before = CheckpointConfiguration(**settings, storage_dir=pathlib.Path("a/b"))  # type: ignore[arg-type]
        assert before.storage_dir == "a/b"
        assert CheckpointConfiguration.from_dict(json.loads(json.dumps(before.to_dict()))) == before

    def test_lists_come_back_through_json(self):
        before = CheckpointConfiguration(
            sanitise_extra_keys=("pin", "Session ID"),
            sanitise_keep_keys=["token"],  # type: ignore[arg-type]
            sanitise_extra_patterns=(r"\bEMP-\d{6}\b", "(?P<secret>x)y"),
        )
        assert before.sanitise_keep_keys == ("token",)
        facts = before.to_dict()
        assert json.loads(json.dumps(facts)) == facts
        assert CheckpointConfiguration.from_dict(facts) == before

    def test_the_callers_dict_is_not_kept(self):
        facts = CheckpointConfiguration().to_dict()
        facts["actor"] = "x"
        assert CheckpointConfiguration().actor is None


class TestFromEnvironment:
    def test_variables(self):
        configuration = CheckpointConfiguration.from_env(
            {
                "CKPTLOG_STORAGE_DIR": "x y",
                "CKPTLOG_CACHE_SIZE_MB": "7",
                "CKPTLOG_INTERVAL_S": "0.5",
                "CKPTLOG_MAX_CONCURRENT_OPERATIONS": "8",
                "CKPTLOG_SANITISE": "Off",
                "CKPTLOG_DURABILITY": "interval",
                "CKPTLOG_ACTOR": "me",
                "CKPTLOG_STORE": "elsewhere",
                "PATH": "/bin",
                "cache_size_mb": "1",
            }
        )
        assert configuration == CheckpointConfiguration(
            storage_dir="x y",
            cache_size_mb=7,
            interval_s=0.5,
            max_concurrent_operations=8,
            sanitise=False,
            durability="interval",
            actor="me",
        )
        assert type(configuration.cache_size_mb) is int

    def test_lists(self):
        configuration = CheckpointConfiguration.from_env(
            {
                "CKPTLOG_SANITISE_EXTRA_KEYS": " pin, Session ID ,,",
                "CKPTLOG_SANITISE_KEEP_KEYS": "",
                "CKPTLOG_SANITISE_EXTRA_PATTERNS": r'["[0-9]{3,4}", "\\bx\\b"]',
            }
        )
        assert configuration.sanitise_extra_keys == ("pin", "Session ID")
        assert configuration.sanitise_keep_keys == ()
        assert configuration.sanitise_extra_patterns == ("[0-9]{3,4}", r"\bx\b")
        empty = CheckpointConfiguration.from_env({"CKPTLOG_SANITISE_EXTRA_PATTERNS": " "})
        assert empty == CheckpointConfiguration()

    @pytest.mark.parametrize("text", ["x", '{"a": 1}', "[1", "[" * 100_000, '"x"', "[0-9]+"])
    def test_patterns_that_are_no_list(self, text):
        with pytest.raises(SettingsError, match=r"CKPTLOG_SANITISE_EXTRA_PATTERNS is .* in JSON"):
            CheckpointConfiguration.from_env({"CKPTLOG_SANITISE_EXTRA_PATTERNS": text})

    def test_a_policy(self):
        text = '{"keep_last": 5}'
        configuration = CheckpointConfiguration.from_env({"CKPTLOG_RETENTION": text})
        assert configuration.retention == {"keep_last": 5}
        assert CheckpointConfiguration.from_dict(configuration.to_dict()) == configuration
        assert CheckpointConfiguration.from_env({"CKPTLOG_RETENTION": ""}).retention is None
        with pytest.raises(SettingsError, match=r"CKPTLOG_RETENTION is .* a policy in JSON"):
            CheckpointConfiguration.from_env({"CKPTLOG_RETENTION": "[5]"})

    def test_a_policy_is_a_copy(self):
        policy = {"keep_last": 5}
        configuration = CheckpointConfiguration(retention=policy)
        policy["keep_last"] = 1
        assert configuration.retention == {"keep_last": 5}
        with pytest.raises(SettingsError, match="retention is 5; it must be a dictionary"):
            configuration.retention = 5

    def test_another_prefix(self):
        found = CheckpointConfiguration.from_env({"X_ACTOR": "me"}, prefix="X_")
        assert found.actor == "me"

    @pytest.mark.parametrize(
        ("variable", "text", "message"),
        [
            ("CKPTLOG_CACHE_SIZE_MB", "many", "CKPTLOG_CACHE_SIZE_MB is 'many'; it must be a num"),
            ("CKPTLOG_CACHE_SIZE_MB", "-1", "cache_size_mb is -1"),
            ("CKPTLOG_CACHE_SIZE_MB", "nan", "cache_size_mb is nan"),
            ("CKPTLOG_COMPRESSION_LEVEL", "3.5", "it must be a whole number"),
            ("CKPTLOG_SANITISE", "", "CKPTLOG_SANITISE is ''; it must be true or false"),
            ("CKPTLOG_ENCRYPTION_ENABLED", "1", "encryption_enabled is set, and this version"),
            ("CKPTLOG_CACHE_SIZE_MBS", "1", "names no setting. Did you mean CKPTLOG_CACHE_SIZE_MB"),
        ],
    )
    def test_bad_variables(self, variable, text, message):
        with pytest.raises(SettingsError) as caught:
            CheckpointConfiguration.from_env({variable: text})
        assert message in str(caught.value)


def test_all_that_is_refused_is_told_at_once():
    env = {
        "CKPTLOG_CACHE_SIZE_MB": "many",
        "CKPTLOG_COMPRESSION_LEVEL": "70",
        "CKPTLOG_ACTOR": "me",
    }
    settings = {"cacheSizeMb": -1, "compressionLevl": 3, "cache_size_mb": 4, "actor": "me"}
    for make, asked, told in (
        (CheckpointConfiguration.from_env, env, ["CKPTLOG_CACHE_SIZE_MB", "compression_level"]),
        (
            CheckpointConfiguration.from_dict,
            settings,
            ["compressionLevl", "cache_size_mb", "cache_size_mb"],
        ),
    ):
        with pytest.raises(SettingsError) as caught:
            make(asked)
        assert [one["argument"] for one in caught.value.context["faults"]] == told
