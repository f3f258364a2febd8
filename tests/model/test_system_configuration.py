"""Every key of the service's configuration: its effect on the object, its faults by name, its page."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import SettingsError
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.setting import camel, snake
from ckptlog.model.system_configuration import (
    PASSED_ON,
    SystemConfiguration,
    setting_rows,
)
from tests.architecture.tree import ROOT

# The complete example of the specification, but for what this version lacks.
EXAMPLE = {
    "checkpoint": {
        "intervalSeconds": 30,
        "maxCheckpoints": 10,
        "compressionLevel": 6,
        "encryptionEnabled": False,
        "storage": {
            "primary": "local",
            "local": {"path": "./data/checkpoints", "maxSizeBytes": 10737418240},
            "cacheSize": 100,
            "cacheTtl": 3600,
        },
        "performance": {
            "maxSaveTimeMs": 5000,
            "maxRecoveryTimeMs": 60000,
            "compressionTarget": 10,
            "batchSize": 5,
        },
    }
}


def snaked(tree):
    if not isinstance(tree, dict):
        return tree
    return {snake(name): snaked(value) for name, value in tree.items()}


def refused(settings) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        SystemConfiguration.from_dict(settings)
    return caught.value


def test_the_complete_example_is_what_the_defaults_are():
    config = SystemConfiguration.from_dict(EXAMPLE)
    assert config.storage.local.path == "./data/checkpoints"
    default = SystemConfiguration().to_dict()
    default["storage"]["local"]["path"] = "./data/checkpoints"
    assert config.to_dict() == default


def test_snake_case_means_the_same():
    assert SystemConfiguration.from_dict(snaked(EXAMPLE)) == SystemConfiguration.from_dict(EXAMPLE)
    inner = EXAMPLE["checkpoint"]
    assert SystemConfiguration.from_dict(inner) == SystemConfiguration.from_dict(EXAMPLE)


def test_toml_and_json_and_dict_are_one():
    toml = """
        [checkpoint]
        intervalSeconds = 7
        capture_signals = ["SIGUSR2"]
        sanitise = false
        [checkpoint.storage.local]
        path = "x"
    """
    settings = {
        "interval_seconds": 7,
        "captureSignals": ["SIGUSR2"],
        "sanitise": False,
        "storage": {"local": {"path": "x"}},
    }
    found = SystemConfiguration.from_toml(toml)
    assert found == SystemConfiguration.from_dict(settings)
    assert found == SystemConfiguration.from_json(json.dumps({"checkpoint": settings}))
    assert found.checkpoint_configuration().sanitise is False


CHANGED = {
    "system": "other",
    "intervalSeconds": 31.5,
    "minIntervalSeconds": 1,
    "maxIntervalSeconds": 99,
    "jitter": 0.25,
    "backoffFactor": 3,
    "deadlineSeconds": 3,
    "restoreDeadlineSeconds": 7,
    "skipUnchanged": False,
    "maxCheckpoints": 20,
    "maxCaptureSizeBytes": 2**20,
    "maxAgeDays": 7,
    "retentionCheck": "full",
    "compressionLevel": 9,
    "captureSignals": ["SIGUSR2", "SIGHUP"],
    "captureOnShutdown": False,
    "standby": True,
    "leaseSeconds": 5,
    "compactionIntervalSeconds": 60,
    "storage.local.path": "./data",
    "storage.local.maxSizeBytes": 2**30,
    "storage.cacheSize": 200,
    "storage.cacheTtl": 7200,
    "performance.maxSaveTimeMs": 3000,
    "performance.maxRecoveryTimeMs": 1000,
    "performance.compressionTarget": 15,
    "performance.batchSize": 2,
    "recovery.retryAttempts": 5,
    "recovery.retryDelaySeconds": 0.5,
    "recovery.retryFactor": 3,
    "recovery.retryDelayMaxSeconds": 20,
    "recovery.breakerFailures": 2,
    "recovery.breakerRestSeconds": 7,
    "recovery.breakerRestMaxSeconds": 700,
    "alerts.errorRate": 0.1,
    "alerts.saveTimeMs": 100,
    "alerts.storagePressure": 0.8,
    "alerts.staleSeconds": 60,
}


def test_each_key_comes_by_dict_and_by_variable_of_all_but_the_refused():
    refused_keys = {"encryptionEnabled", "storage.primary"}
    assert {row[0] for row in setting_rows()} == set(CHANGED) | refused_keys


@pytest.mark.parametrize("path", sorted(CHANGED))
def test_each_key_comes_by_dict_and_by_variable(path):
    """Round trip of a value other than the default, in both spellings, and by its variable."""
    value = CHANGED[path]
    for spell in (str, snake):
        tree: dict = {}
        *groups, name = map(spell, path.split("."))
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
        found = SystemConfiguration.from_dict(tree)
        assert at(found.to_dict(), path) == value
        assert found != SystemConfiguration()
        assert SystemConfiguration.from_dict(found.to_dict()) == found
    text = ",".join(value) if isinstance(value, list) else str(value)
    variable = "CKPTLOG_" + snake(path.replace(".", "_")).upper()
    assert at(SystemConfiguration.from_env({variable: text}).to_dict(), path) == value


def at(tree, path):
    for name in path.split("."):
        tree = tree[name]
    return tree


@pytest.mark.parametrize(
    ("settings", "path", "hint"),
    [
        ({"intervalSecond": 1}, "intervalSecond", "Did you mean intervalSeconds?"),
        ({"storage": {"cachSize": 1}}, "storage.cachSize", "Did you mean storage.cacheSize?"),
        ({"storage": {"local": {"paht": ""}}}, "storage.local.paht", "storage.local.path"),
        ({"recovery": {"retryAttemps": 1}}, "recovery.retryAttemps", "recovery.retryAttempts?"),
        ({"breakerFailures": 3}, "breakerFailures", "Did you mean recovery.breakerFailures?"),
        ({"batchSize": 3}, "batchSize", "Did you mean performance.batchSize?"),
        ({"cacheSizeMb": 3}, "cacheSizeMb", "Here it is storage.cacheSize."),
        ({"storage_dir": "x"}, "storage_dir", "Here it is storage.local.path."),
        ({"storage": {"s3": {"bukket": 1}}}, "storage.s3.bukket", "storage.s3.bucket"),
        ({"storage": {"s3": {"bucket": "b"}}}, "storage.s3", "captures lie in storage.local"),
        ({"storage": {"primary": "s3"}}, "storage.primary", 'Set it to "local"'),
        ({"encryptionEnabled": True}, "encryptionEnabled", "permissions"),
        ({"encryption_key": "k"}, "encryption_key", ""),
        ({"max_checkpoint_size_mb": -1}, "max_checkpoint_size_mb", ""),
        ({"zzz": 1}, "zzz", "Here are: "),
        ({1: 1}, "1", ""),
    ],
)
def test_faults_are_named_by_their_path(settings, path, hint):
    error = refused(settings)
    assert error.context["argument"] == path
    assert hint in str(error)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("intervalSeconds", 0),
        ("intervalSeconds", True),
        ("intervalSeconds", float("nan")),
        ("intervalSeconds", "30"),
        ("jitter", 0.6),
        ("maxCheckpoints", 1.5),
        ("compressionLevel", 10),
        ("captureSignals", ["SIGKILL"]),
        ("captureSignals", "SIGUSR1"),
        ("standby", 1),
        ("system", ""),
        ("storage.local.path", ""),
        ("storage.local.maxSizeBytes", 1),
        ("storage.local", []),
        ("storage.primary", "tape"),
        ("performance", 3),
        ("backoffFactor", 0.5),
        ("recovery", 3),
        ("recovery.retryAttempts", 0),
        ("recovery.retryAttempts", 2.5),
        ("recovery.retryDelaySeconds", -1),
        ("recovery.retryDelayMaxSeconds", 0.1),  # less than the first one
        ("recovery.breakerFailures", 0),
        ("recovery.breakerRestSeconds", 0),
        ("recovery.breakerRestMaxSeconds", 29),
        ("alerts.errorRate", 0),
    ],
)
def test_values_out_of_range_are_named_by_their_path(path, value):
    tree = value
    for name in reversed(path.split(".")):
        tree = {name: tree}
    error = refused(tree)
    assert error.context["argument"] == path
    assert str(error).startswith(f"{path} is ")


def test_what_contradicts_is_refused():
    assert "given twice" in str(refused({"intervalSeconds": 1, "interval_seconds": 1}))
    assert "or 0" in str(refused({"intervalSeconds": 10, "maxIntervalSeconds": 5}))
    with pytest.raises(SettingsError, match="twice"):
        SystemConfiguration.from_json('{"jitter": 0, "jitter": 0}')
    for text in ("[", "x = ", "\0", f'{{"jitter": {"1" * 5000}}}', f"jitter = {'1' * 5000}"):
        with pytest.raises(SettingsError):
            SystemConfiguration.from_toml(text)
        with pytest.raises(SettingsError):
            SystemConfiguration.from_json(text)
    assert "dict" in str(refused([1]))


@pytest.mark.parametrize("name", ["storage", "performance", "recovery", "alerts", "manager"])
def test_a_group_that_is_none_is_refused_by_its_name(name):
    for value in (None, 5, [1]):
        with pytest.raises(SettingsError) as caught:
            SystemConfiguration(**{name: value})
        assert caught.value.context["argument"] == name
    if name != "manager":
        with pytest.raises(SettingsError, match="from_dict"):
            SystemConfiguration(**{name: {}})


def test_variables():
    env = {
        "CKPTLOG_STORE": "/store",
        "CKPTLOG_SANITISE": "no",
        "CKPTLOG_MAX_CHECKPOINT_SIZE_MB": "3",
        "CKPTLOG_KEYS": "x",
        "OTHER": "1",
    }
    place = {"CKPTLOG_STORAGE_LOCAL_PATH": "/own"}
    for own in ({**env, **place}, {**place, **env}):  # whatever the order is
        assert SystemConfiguration.from_env(own).storage.local.path == "/own"
    base = SystemConfiguration(interval_seconds=5)
    found = SystemConfiguration.from_env(env, base=base)
    assert found.interval_seconds == 5
    assert found.storage.local.path == "/store"
    assert found.checkpoint_configuration().max_checkpoint_size_mb == 3
    for name, text, word in (
        ("CKPTLOG_INTERVAL_SECOND", "1", "CKPTLOG_INTERVAL_SECONDS"),
        ("CKPTLOG_STANDBY", "maybe", "True or False"),
        ("CKPTLOG_MAX_CHECKPOINTS", "x", "a whole number"),
    ):
        with pytest.raises(SettingsError) as caught:
            SystemConfiguration.from_env({name: text})
        assert word in str(caught.value)
        assert caught.value.context["argument"] == name


def test_a_managers_configuration_is_one_too():
    config = CheckpointConfiguration(
        storage_dir="/s",
        max_storage_size_gb=2,
        cache_size_mb=7,
        compression_level=3,
        max_checkpoint_age_days=4,
        actor="me",
    )
    found = SystemConfiguration.from_checkpoint_configuration(config, interval_seconds=3)
    assert found.max_age_days == 4
    assert found.interval_seconds == 3
    assert found.storage.local.max_size_bytes == 2 * 2**30
    made = found.checkpoint_configuration()
    assert made.cleanup_interval_hours == 0
    made.cleanup_interval_hours = config.cleanup_interval_hours
    made.max_checkpoint_age_days = config.max_checkpoint_age_days
    assert made == config
    off = CheckpointConfiguration(cleanup_interval_hours=0)
    assert SystemConfiguration.from_checkpoint_configuration(off).max_age_days == 0


def test_the_managers_own_settings_are_keys_too():
    assert {"sanitise", "actor", "durability", "max_checkpoint_size_mb"} <= set(PASSED_ON)


def test_a_misplaced_key_of_the_service_is_told_to_the_manager():
    with pytest.raises(SettingsError, match="create_checkpoint_system"):
        CheckpointConfiguration.from_dict({"intervalSeconds": 3})


@given(st.from_regex(r"[a-z]{2,}(_[a-z]{2,})*", fullmatch=True))
def test_spellings_are_reversible(name):
    assert snake(camel(name)) == name


def test_the_page_has_every_key():
    page = (ROOT / "specs" / "service.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    told = [tuple(one.replace("\\|", "|") for one in row) for row in rows]
    assert told == setting_rows()


def test_the_least_room_is_one_that_a_manager_accepts():
    config = SystemConfiguration.from_dict({"storage": {"local": {"maxSizeBytes": 2 * 2**20}}})
    assert config.checkpoint_configuration().storage_size_bytes_max == 2 * 2**20


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("CKPTLOG_MAX_STORAGE_SIZE_GB", "storage.local.maxSizeBytes"),
        ("CKPTLOG_STORAGE_DIR", "storage.local.path"),
        ("CKPTLOG_STORAGE_S3_BUCKET", "storage.local"),
        ("CKPTLOG_STORAGE_S3", "storage.local"),
        ("CKPTLOG_S3_BUCKET", "storage.local"),
        ("CKPTLOG_CHECKPOINT_STORAGE_DIR", "storage.local.path"),
        ("CKPTLOG_PRIMARY", "mean CKPTLOG_STORAGE_PRIMARY?"),
        ("CKPTLOG_COMPRESSION", "mean CKPTLOG_COMPRESSION_LEVEL?"),
        ("CKPTLOG_INTERVAL", "mean CKPTLOG_INTERVAL_SECONDS?"),
        ("CKPTLOG_CHECKPOINT_INTERVAL", "mean CKPTLOG_INTERVAL_SECONDS?"),
        ("CKPTLOG_MAX_CHECKPOINT", "mean CKPTLOG_MAX_CHECKPOINTS?"),
        ("CKPTLOG_INTERVAL_SECS", "mean CKPTLOG_INTERVAL_SECONDS?"),
        ("CKPTLOG_STORAGE_COMPRESSION_LEVEL", "mean CKPTLOG_COMPRESSION_LEVEL?"),
        ("CKPTLOG_CONCURRENT_OPERATIONS", "mean CKPTLOG_MAX_CONCURRENT_OPERATIONS?"),
    ],
)
def test_a_variable_is_refused_where_a_dict_would_be(variable, says):
    with pytest.raises(SettingsError, match=variable) as caught:
        SystemConfiguration.from_env({variable: "5"})
    assert says in str(caught.value)


@pytest.mark.parametrize("primary", [None, 5, "", [], "tape"])
def test_a_place_that_is_none_is_told_once(primary):
    with pytest.raises(SettingsError) as caught:
        SystemConfiguration.from_dict({"storage": {"primary": primary}})
    assert str(caught.value).count("storage.primary") == 1


def test_the_outer_word_may_stand_in_a_variable():
    env = {
        "CKPTLOG_CHECKPOINT_INTERVAL_SECONDS": "7",
        "CKPTLOG_CHECKPOINT_STORAGE_CACHE_SIZE": "9",
        "CKPTLOG_CHECKPOINT_SANITISE": "no",
    }
    found = SystemConfiguration.from_env(env)
    assert (found.interval_seconds, found.storage.cache_size) == (7, 9)
    assert found.checkpoint_configuration().sanitise is False
    with pytest.raises(SettingsError, match="CKPTLOG_CHECKPOINT_INTERVAL_SECONDS is 'abc'"):
        SystemConfiguration.from_env({"CKPTLOG_CHECKPOINT_INTERVAL_SECONDS": "abc"})
    with pytest.raises(SettingsError, match="set the same"):
        SystemConfiguration.from_env({**env, "CKPTLOG_INTERVAL_SECONDS": "7"})


def test_variables_of_other_parts_and_of_others_are_left_alone():
    """Each that the program, its hooks or its tests name is a setting, or known as another's."""
    named = set()
    for folder in ("ckptlog", "tools", "specs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".sh"}:
                named |= set(re.findall(r"\bCKPTLOG_(\w+)", path.read_text(encoding="utf-8")))
    settings = {snake(path.replace(".", "_")).upper() for path, *_ in setting_rows()}
    passed_on = {one.upper() for one in PASSED_ON}
    others = named - settings - passed_on - MEANT
    assert {"KEYS", "LEASE", "DEBUG", "PURE", "WEBHOOK_SECRET", "TASK", "CHECKPOINT"} < others
    others |= {"EVENT_TASK", "SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_80_TCP_ADDR", "OWN"}
    env = {f"CKPTLOG_{one}": "1" for one in others if one != "STORE"}
    assert SystemConfiguration.from_env(env) == SystemConfiguration()
    assert CheckpointConfiguration.from_env(env) == CheckpointConfiguration()


# Written of as an example of what is refused, or as something that has more words.
MEANT = {
    "COMPRESSION", "INTERVAL", "PRIMARY", "S3_BUCKET", "CHECKPOINT_INTERVAL_SECONDS",
    "CHECKPOINT_STORAGE_CACHE_SIZE", "CACHE_SIZE_MB", "S3_",
}  # fmt: skip


def test_all_that_is_refused_is_told_at_once():
    inner = EXAMPLE["checkpoint"]
    settings = {
        **inner,
        "encryptionEnabled": True,  # as the specification's example has it, with the next two
        "storage": {
            **inner["storage"],
            "primary": "s3",
            "s3": {"bucket": "maos-checkpoints", "region": "us-west-2", "prefix": "checkpoints/v1"},
            "local": {"path": "", "maxSizeBytes": 1},
        },
        "intervalSecond": 3,
        "jitter": 7,
    }
    error = refused({"checkpoint": settings})
    told = [
        "storage.local.path",
        "storage.local.maxSizeBytes",
        "storage.s3",
        "storage.primary",
        "intervalSecond",
        "jitter",
        "encryptionEnabled",
    ]
    assert sorted(one["argument"] for one in error.context["faults"]) == sorted(told)
    assert error.message.startswith("7 settings are refused. ")
    for one in error.context["faults"]:
        assert one["message"] in error.message
        assert one["hint"] in error.message
    assert "Did you mean intervalSeconds?" in error.message
    assert json.loads(json.dumps(error.to_dict())) == error.to_dict()


def test_what_is_wrong_by_hand_is_told_at_once_too():
    with pytest.raises(SettingsError, match=r"3 settings .*jitter.*maxAgeDays.*encryptionEnabled"):
        SystemConfiguration(jitter=7, max_age_days=-1, encryption_enabled=True)


def test_all_variables_that_are_refused_are_told_at_once():
    env = {
        "CKPTLOG_STANDBY": "maybe",
        "CKPTLOG_JITTER": "7",
        "CKPTLOG_MAX_CHECKPOINTS": "x",
        "CKPTLOG_INTERVAL_SECOND": "1",
        "CKPTLOG_STORAGE_DIR": "/s",
        "CKPTLOG_STORAGE_S3_BUCKET": "b",
        "CKPTLOG_MAX_CHECKPOINT_SIZE_MB": "-1",
        "CKPTLOG_SANITISE": "perhaps",
        "CKPTLOG_INTERVAL_SECONDS": "5",
        "CKPTLOG_OTHER_THING": "is somebody else's",
        "OTHER": "1",
    }
    with pytest.raises(SettingsError) as caught:
        SystemConfiguration.from_env(env)
    told = {one["argument"] for one in caught.value.context["faults"]}
    wrong = set(env) - {"CKPTLOG_INTERVAL_SECONDS", "CKPTLOG_OTHER_THING", "OTHER"}
    by_path = {
        "CKPTLOG_JITTER": "jitter",
        "CKPTLOG_MAX_CHECKPOINT_SIZE_MB": "max_checkpoint_size_mb",
    }
    assert told == {by_path.get(one, one) for one in wrong}
    assert caught.value.message.startswith("8 settings are refused. ")


def test_the_outer_word_stands_alone():
    error = refused({"checkpoint": {"intervalSeconds": 5}, "system": "x", "jitter": 0})
    assert error.message == (
        "The outer \"checkpoint\" stands beside 'jitter', 'system'; it must stand alone."
    )
    assert 'Put all settings into "checkpoint"' in error.hint
    assert error.context["argument"] == "checkpoint"
    for value in (5, None, "intervalSeconds", []):
        assert "checkpoint is" in refused({"checkpoint": value}).message
        assert "a table of settings (a dict)" in refused({"checkpoint": value}).message


def test_a_group_that_is_no_table_says_what_it_holds():
    error = refused({"storage": "/somewhere"})
    assert error.message == "storage is '/somewhere'; it must be a table of settings (a dict)."
    assert error.hint == "Here are: cacheSize, cacheTtl, local, primary."
