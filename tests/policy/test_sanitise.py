"""Secrets are found by key and by shape, and what only looks like one is left alone."""

from __future__ import annotations

import base64
import datetime
import json
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import SettingsError
from ckptlog.model.value import decode, encode, lower, prepare
from ckptlog.policy import sanitise
from ckptlog.policy.sanitise import REPLACEMENT, Sanitiser
from ckptlog.policy.secret_key import words_of
from ckptlog.policy.secret_text import RULES
from tests.model.value_cases import fingerprint, values

SPECS = Path(__file__).resolve().parent.parent.parent / "specs"
SANITISER = Sanitiser()


def words(text: str) -> list[str]:
    return text.split()


SECRET_KEYS = words("""
password Password PASSWORD passwd user_password passWord db_password password2 passphrase passcode
password_hash secret secrets client_secret clientSecret CLIENT_SECRET client-secret secret_key
secretKey AWSSecretAccessKey aws_secret_access_key secretAccessKey token auth_token authToken
access_token accessToken refresh_token id_token csrf_token github_token GITHUB_TOKEN bot_token
token_2 apiToken bearer_token session_token tokenSecret api_key apikey api-key apiKey APIKey API_KEY
X-Api-Key x.api.key OPENAI_API_KEY openai_api_keys authorization Authorization Proxy-Authorization
authorization_code auth_header private_key privateKey ssh_private_key access_key access_keys
encryption_key signing_key ssh_key account_key master_key credential credentials aws_credentials
creds cookie cookies Cookie Set-Cookie session_cookie session_cookies cookie_header connect.sid
PHPSESSID db_pass DB_PWD smtp_pass basic_auth access_tokens auth_tokens pass PASS Pass
PGPASSWORD dbpassword userPasswd rootpassword keystorepassword dbpass SMTPPASS mysqlpwd
openai_key OPENAI_KEY openaiKey openaikey anthropic_key stripe_key aws_key azure-key openai_keys
openaiapikey myapikey appsecret jwtsecret webhooksecret myaccesstoken
""")

HARMLESS_KEYS = words("""
tokens token_count max_tokens total_tokens prompt_tokens completion_tokens usage_tokens tokenizer
tokenize tokenized token_ids token_usage token_type eos_token bos_token pad_token next_page_token
nextPageToken continuation_token resume_token max_token special_tokens secretary secretariat
passport passenger passed passes passing pass_count first_pass pass_rate passFail test_pass
compass bypass overpass trespass surpass impasse mypass pwd cpwd key openai_key_name openai
firebase_key sentry_key redis_key google_keyboard openai_model keypass changepassword no_pass
forgotPasswordUrl resetpassword nopassword topsecretary monkey_key s3_key license_key keys primary_key public_key cache_key
sort_key foreign_key keyboard monkey turkey api apis author authors authored authority auth
password_length password_policy passwordField password_file secret_name secret_arn secretId
secrets_manager api_key_env api_key_name apiKeyId access_key_id private_key_id private_key_path
credentials_file credential_type authorization_url authorization_endpoint token_endpoint
token_url cookie_count cookie_consent session session_id sessionId user username hash salt
description title content role message messages step path url 1 $ _ 密码长度
""")

HEX = "0123456789abcdef"
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
HEADERS = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00"
KEY_KINDS = ["", "RSA ", "EC ", "OPENSSH "]
MIXED = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY2zA4"  # 36 letters and digits

# Rule -> texts that are secrets as a whole. Put together from parts, so that no scanner of
# repositories takes them for real ones.
WHOLE: dict[str, list[str]] = {
    "private key": [
        f"-----BEGIN {kind}-----\n{BODY}\n{BODY}=\n-----END {kind}-----"
        for kind in [*(f"{name}PRIVATE KEY" for name in KEY_KINDS), "PGP PRIVATE KEY BLOCK"]
    ]
    + [
        f"-----BEGIN PRIVATE KEY-----\\n{BODY}\\n-----END PRIVATE KEY-----\\n"[:-2],
        f"-----BEGIN RSA PRIVATE KEY-----\n{HEADERS}\n\n{BODY}\n-----END RSA PRIVATE KEY-----",
    ],
    "cut private key": [f"-----BEGIN PRIVATE KEY-----\n{BODY}\n{BODY[:30]}"],
    "AWS access key id": ["AK" + "IAIOSFODNN7EXAMPLE", "AS" + "IAIOSFODNN7EXAMPLE"],
    "GitHub token": [
        *(f"gh{kind}_{MIXED}" for kind in "pousr"),
        f"ghp_{'a' * 36}",
        f"github_pat_{MIXED[:22]}_{MIXED * 2}",
    ],
    "GitLab token": [f"gl{kind}-{MIXED[:20]}" for kind in ("pat", "dt", "rt", "ptt", "cbt")]
    + [f"glpat-{MIXED[:20]}.01.{MIXED[:9]}"],
    "Slack token": [
        *(f"xox{kind}-12345678901-{MIXED[:24]}" for kind in "abeoprs"),
        f"xapp-1-A0123-{MIXED}",
    ],
    "OpenAI or Anthropic key": [
        f"sk-{MIXED}T3BlbkFJ",
        f"sk-proj-{MIXED}_{MIXED}-x",
        f"sk-ant-api03-{MIXED}-{MIXED}AA",
    ],
    "Google API key": [f"AIza{MIXED[:35]}", f"AIza-_{MIXED[:33]}"],
    "Google OAuth secret": [f"ya29.{MIXED}", f"GOCSPX-{MIXED[:28]}"],
    "Stripe key": [
        f"sk_live_{MIXED[:24]}",
        f"rk_test_{MIXED[:24]}",
        f"whsec_{MIXED[:32]}",
    ],
    "package or model hub token": [f"npm_{MIXED}", f"hf_{MIXED[:34]}", f"pypi-{MIXED}{MIXED}"],
    "JSON web token": [f"eyJ{MIXED}.eyJ{MIXED}.{MIXED}-_"],
    "Groq or xAI key": [f"gsk_{MIXED}{MIXED[:16]}", f"xai-{MIXED}{MIXED}abcdefgh"],
    "SendGrid key": [f"SG.{MIXED[:22]}.{MIXED}abc-_12", f"SG.{MIXED[:20]}-_.{MIXED}1234567"],
    "Vault token": [f"hvs.CAESI{MIXED}{MIXED}-_x", f"hvb.{MIXED}", f"hvr.{MIXED[:24]}"],
    "Shopify token": [f"shp{kind}_{HEX * 2}" for kind in ("at", "ca", "pa", "ss")]
    + [f"shpat_{HEX.upper() * 2}"],
    "DigitalOcean token": [f"do{kind}_v1_{HEX * 4}" for kind in "por"],
    "Telegram bot token": [f"{digits}:AA{MIXED[:31]}-_" for digits in (12345678, 1234567890)],
}

# Rule -> (text, its secret part).
PARTS: dict[str, list[tuple[str, str]]] = {
    "AWS secret access key": [
        (f"{name}{between}{secret}", secret)
        for secret in ["wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"]
        for name, between in [
            ("aws_secret_access_key", " = "),
            ("AWS_SECRET_ACCESS_KEY", "="),
            ("secret_key", ": "),
            ("SECRET_KEY", '="'),
            ("SecretAccessKey", '": "'),
            ("secretAccessKey", "' => '"),
            ("secretKey", ":"),
            ("secret-access-key", ": "),
            ('{\\"SecretAccessKey', '\\": \\"'),
        ]
    ],
    "Azure storage key": [(f"AccountName=a;AccountKey={BODY}==;X=y", f"{BODY}==")],
    "authorization header": [
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("authorization: bearer abcdefgh", "abcdefgh"),
        (f"curl -H 'Authorization: token {MIXED}' x", MIXED),
        (f'"Authorization": "Bearer {MIXED}"', MIXED),
        (f'{{\\"Authorization\\": \\"Bearer {MIXED}\\"}}', MIXED),
    ],
    "Telegram bot token": [
        (f"https://api.telegram.org/bot123456789:AA{MIXED[:33]}/getMe", f"123456789:AA{MIXED[:33]}")
    ],
    "Slack webhook": [
        (f"https://hooks.slack.com/{kind}/{secret}", secret)
        for kind in ("services", "workflows", "triggers")
        for secret in (f"T0123ABCD/B0123ABCD/{MIXED[:24]}",)
    ]
    + [
        (f"curl -X POST hooks.slack.com/workflows/{secret} -d", secret)
        for secret in (f"T0123ABCD/A0123ABCD/123456789012345678/{MIXED[:24]}",)
    ],
    "key in an environment": [
        (f"export {name}={quote}{secret}{quote} && run", secret)
        for secret in (MIXED[:20], f"{HEX}{HEX}", f"{MIXED}-_/+==")
        for quote in ("", "'", '"')
        for name in words(
            "OPENAI_API_KEY API_KEY MY_SECRET_KEY ACCESS_KEY X_ACCESS_TOKEN AUTH_TOKEN API_TOKEN "
            "SLACK_BOT_TOKEN GITHUB_TOKEN GITLAB_TOKEN HF_TOKEN"
        )
        if "SECRET_KEY" not in name or len(secret) != 40
    ],
    "bearer token": [(f"Bearer {MIXED}", MIXED), (f"-H BEARER  {MIXED}==", f"{MIXED}==")],
    "password in a URL": [
        ("postgres://user:hunter2@localhost:5432/db", "hunter2"),
        ("https://a:b@c", "b"),
        ("redis://:pa:ss@[::1]/0", "pa:ss"),
        ("http://user:%40x@host", "%40x"),
        ("git+ssh://é:漢@host", "漢"),
    ],
}

SAMPLES = [(rule, text, text) for rule, texts in WHOLE.items() for text in texts] + [
    (rule, text, secret) for rule, pairs in PARTS.items() for text, secret in pairs
]

HARMLESS_TEXTS = [
    "",
    "The secret of a good password is its length; tokens are counted by the tokenizer.",
    "-----BEGIN PRIVATE KEY-----",
    'if "-----BEGIN PRIVATE KEY-----" in text and "-----END PRIVATE KEY-----" in text: pass',
    f"-----BEGIN PUBLIC KEY-----\n{BODY}\n-----END PUBLIC KEY-----",
    f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----",
    "AKIA",
    f"{BODY}AKIAIOSFODNN7EXAMPLE{BODY}",  # by chance, inside base64
    "ghp_short gho_ ghs_xxx",
    f"xghp_{MIXED}",
    "glpat-short",
    "xoxo-hugs-and-kisses, boxoxb-1",
    "sk-learn-contrib-some-package-name, task-0123456789012345678901234567890",
    "sk-toggleable__item",
    "AIzaShort",
    f"AIza{MIXED}{MIXED}",  # longer than any
    "eyJhbGciOiJIUzI1NiJ9",
    "eyJ.eyJ.abc",
    "eyJhbGciOiJIUzI1NiJ9 . eyJhbGciOiJIUzI1NiJ9 . abcdefghijkl",
    "Authorization: required",
    "authorization is done by bearer tokens",
    "Bearer of good news, Bearer authentication-by-certificate",
    "http://localhost:8080/a@b and http://[::1]:80/x?y=a:b@c",
    "mail joe@example.org or see https://example.org/~joe:x",
    "https://user@example.org/ and @decorator",
    "postgres://{user}:{password}@{host}/db",
    "postgres://$USER:$PASSWORD@host, postgres://u:%(password)s@h, postgres://u:%s@h",
    "https://user:<password>@host, https://user:***@host, https://user:[redacted]@host",
    "commit 0123456789abcdef0123456789abcdef01234567",
    "secret_key: short, aws_secret_access_key = os.environ['X']",
    f"secret_key={HEX * 4}",  # 64 characters: a digest, not a key of AWS
    "AccountKey=...;",
    f"gsk_short, xai-short, xai-grok-code-fast-and-more-words-than-that-in-a-row, xgsk_{MIXED}{MIXED}",
    f"SG.{MIXED[:21]}.{MIXED}abc-_12, SG.{MIXED[:22]}.{MIXED}, SG.{MIXED[:22]}.{MIXED}abc-_123",
    "hvs.some_function_of_a_module_with_a_long_name(), hvs.x1, chvs.a1" + MIXED,
    f"shpat_{HEX}, shpzz_{HEX * 2}, shpat_{HEX * 3}, ashpat_{HEX * 2}",
    f"dop_v1_{HEX * 3}, dop_v2_{HEX * 4}, dop_v1_{HEX * 5}",
    f"12:AA{MIXED[:33]}, 123456789:AB{MIXED[:33]}, 123456789:AA{MIXED}, 123456789:A",
    f"a{'1' * 9}:AA{MIXED[:33]}, {'1' * 12}:AA{MIXED[:33]}, 10:AAPL, ratio 12345678:AAAA",
    "https://hooks.slack.com/services/ and https://hooks.slack.com/services/T000/B000/XXXX",
    "https://hooks.slack.com/services/$TEAM/$BOT/$KEY, hooks.slack.com/services/{team}/{bot}/{key}",
    'OPENAI_API_KEY=os.environ["OPENAI_API_KEY"], API_KEY=settings_of_2_projects.KEY_OF_THE_FIRST',
    "API_KEY=${OPENAI_API_KEY_2_FROM_VAULT}, API_KEY=$OPENAI_API_KEY_2_FROM_VAULT, API_KEY=",
    "API_KEY=get_the_key_number_2_from_vault(), API_KEY=keys_by_number_2_and_name[0]",
    "API_KEY=your-api-key-goes-here-please, API_KEY=12345678901234567890123, API_KEY=abc123",
    f"NEXT_TOKEN={MIXED}, EOS_TOKEN={MIXED}, PAGE_TOKEN={MIXED}, MAX_TOKENS={MIXED}",
    f"CACHE_KEY={MIXED}, PRIMARY_KEY={MIXED}, RAPI_KEY={MIXED}, api_key_env={MIXED}",
    "s3://bucket/key?x=npm_config_registry_and_some_more_words_here",
]

# What may stand around a secret in a text: it must be found in each.
AROUND = [
    ("", ""),
    (" ", " "),
    ("line\n", "\nline"),
    ('"', '"'),
    ("'", "'"),
    ("key=", ";"),
    ("(", ")"),
    ("{'x': '", "'}"),
    ('{\\"x\\": \\"', '\\"}'),
    ("\\n", "\\n"),
    ("\t", "\r\n"),
    ("漢字", "漢字"),
    ("\x00\x1f", "\x00"),
    ("\\\\ ", " \\\\"),
    ("<b>", "</b>"),
    (",", ","),
    ('","', '","'),
]


def sanitised(value: Any, **options: Any) -> tuple[Any, int]:
    prepared = prepare(value, sanitiser=Sanitiser(**options))
    assert encode(lower(value, sanitiser=Sanitiser(**options))) == prepared.wire
    return decode(prepared.wire), prepared.sanitised_count


class TestKeys:
    @pytest.mark.parametrize("key", SECRET_KEYS)
    def test_secret(self, key):
        assert sanitised({key: "hunter2"}) == ({key: REPLACEMENT}, 1)

    @pytest.mark.parametrize("key", HARMLESS_KEYS)
    def test_harmless(self, key):
        assert sanitised({key: "hunter2"}) == ({key: "hunter2"}, 0)

    def test_a_long_key_is_a_text(self):
        key = "What is my password? " * 10
        assert sanitised({key: "none"}) == ({key: "none"}, 0)

    def test_words(self):
        assert words_of("AWSSecretAccessKey2") == ("aws", "secret", "access", "key")
        assert words_of("x-api_key.v1") == ("x", "api", "key", "v")
        assert words_of("123 $_-") == ()
        assert words_of("Straße_mit漢字") == ("stra", "ss", "e", "mit", "漢字")

    @given(values.filter(lambda value: not isinstance(value, dict)), st.sampled_from(SECRET_KEYS))
    def test_the_shape_stays_and_nothing_is_counted_twice(self, value, key):
        once, _ = sanitised({"a": {key: value}})
        again, count = sanitised(once)
        assert count == 0
        assert fingerprint(again) == fingerprint(once)
        assert type(once["a"][key]) in {type(value), str}

    def test_numbers_times_and_arrays_stay(self):
        kept = [None, True, 0, 512, 0.5, float("inf"), datetime.date(2024, 5, 6), np.arange(3)]
        found, count = sanitised({"token": kept})
        assert count == 0
        assert fingerprint(found) == fingerprint({"token": kept})

    def test_texts_and_what_may_hold_one_are_replaced_at_any_depth(self):
        value = {
            "credentials": {
                "user": "joe",
                "more": ["a", ("b", {"c"}), b"d", bytearray(b"e"), uuid.UUID(int=1), 7],
                "numpy": [np.str_("f"), np.bytes_(b"g"), np.float64(1)],
                "$x": "h",
                "only": {"$x": "i"},
                "empty": ["", b""],
            }
        }
        found, count = sanitised(value)
        assert count == 11
        assert found == {
            "credentials": {
                "user": REPLACEMENT,
                "more": [
                    REPLACEMENT,
                    (REPLACEMENT, {REPLACEMENT}),
                    REPLACEMENT,
                    REPLACEMENT,
                    REPLACEMENT,
                    7,
                ],
                "numpy": [REPLACEMENT, REPLACEMENT, np.float64(1)],
                "$x": REPLACEMENT,
                "only": {"$x": REPLACEMENT},
                "empty": ["", b""],
            }
        }

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda inner: inner,
            lambda inner: [inner],
            lambda inner: ({"x": (inner,)},),
            lambda inner: {"$x": inner},
            lambda inner: {"$tuple": [inner]},
        ],
    )
    def test_keys_inside_tags(self, wrap):
        assert sanitised(wrap({"password": "x"})) == (wrap({"password": REPLACEMENT}), 1)

    def test_an_escaped_dict(self):
        assert sanitised({"$password": "x"}) == ({"$password": REPLACEMENT}, 1)

    def test_a_set_of_secrets_becomes_smaller(self):
        value = {"secrets": {"a", "b", 3, ("c", 1), ("d", 1), ("c", 2)}}
        expected = {REPLACEMENT, 3, (REPLACEMENT, 1), (REPLACEMENT, 2)}
        assert sanitised(value) == ({"secrets": expected}, 5)

    def test_two_nans_in_a_set_of_secrets_stay_two(self):
        nan, other = float("nan"), float("nan")
        (found, _) = sanitised({"secrets": {nan, other, "a", "b"}})
        assert len(found["secrets"]) == 3

    def test_the_callers_value_is_left_alone(self):
        inner = {"password": "x", "text": f"ghp_{MIXED}"}
        prepare([inner], sanitiser=SANITISER)
        assert inner == {"password": "x", "text": f"ghp_{MIXED}"}


class TestTexts:
    def test_every_rule_has_samples(self):
        assert {rule.name for rule in RULES} == {rule for rule, *_ in SAMPLES}
        assert all(rule.why.endswith(".") and "\n" not in rule.why for rule in RULES)

    def test_the_specification_has_every_rule(self):
        page = (SPECS / "sanitise.md").read_text(encoding="utf-8")
        assert [rule for rule in RULES if f"| {rule.name} | {rule.why} |" not in page] == []

    @pytest.mark.parametrize(("rule", "text", "secret"), SAMPLES)
    def test_the_secret_part_is_replaced_everywhere(self, rule, text, secret):
        pattern = next(entry.pattern for entry in RULES if entry.name == rule)
        assert re.search(pattern, text), "the sample is not of its rule"
        cleaned = text.replace(secret, REPLACEMENT)
        for before, after in AROUND:
            expected = ({"log": [before + cleaned + after]}, 1)
            assert sanitised({"log": [before + text + after]}) == expected

    @pytest.mark.parametrize("text", HARMLESS_TEXTS)
    def test_harmless(self, text):
        value = [text, {"x": "; ".join([text] * 3)}]
        assert sanitised(value) == (value, 0)

    def test_all_secrets_of_a_text_are_counted(self):
        text = " and ".join(text for _, text, _ in SAMPLES if "BEGIN" not in text)
        (found,), count = sanitised([text])
        assert count == found.count(REPLACEMENT) == text.count(" and ") + 1
        assert sanitised([found]) == ([found], 0)

    def test_keys_that_are_secrets(self):
        one, other = f"ghp_{MIXED}", f"gho_{MIXED}"
        value = {"a": 1, one: 2, other: 3, "b": {one: 4}}
        found, count = sanitised(value)
        assert count == 3
        assert list(found.items()) == [
            ("a", 1),
            (REPLACEMENT, 2),
            (REPLACEMENT + "'", 3),
            ("b", {REPLACEMENT: 4}),
        ]
        mixed, _ = sanitised({one: 1, REPLACEMENT: 2})
        assert mixed == {REPLACEMENT + "'": 1, REPLACEMENT: 2}

    def test_texts_inside_tags(self):
        secret = f"ghp_{MIXED}"
        value = [(secret,), {secret, "a"}, frozenset({(secret,)}), np.str_(secret), {"$x": secret}]
        expected = [
            (REPLACEMENT,),
            {REPLACEMENT, "a"},
            frozenset({(REPLACEMENT,)}),
            np.str_(REPLACEMENT),
            {"$x": REPLACEMENT},
        ]
        assert sanitised(value) == (expected, 5)

    def test_bytes_and_arrays_are_not_searched(self):
        secret = f"ghp_{MIXED}"
        value = [secret.encode(), np.array([secret]), datetime.date(2024, 5, 6), secret]
        found, count = sanitised(value)
        assert count == 1
        assert fingerprint(found[:3]) == fingerprint(value[:3])

    def test_base64_that_looks_like_a_secret_is_kept(self):
        raw = base64.b64decode("AK" + "IAIOSFODNN7EXAMPLE+AAA")
        assert SANITISER.may_hold_secret(prepare(raw).wire)
        assert sanitised([raw, "a"]) == ([raw, "a"], 0)

    def test_an_escaped_dict_whose_key_is_cleaned(self):
        assert sanitised({f"$ ghp_{MIXED}": 1}) == ({f"$ {REPLACEMENT}": 1}, 1)
        found, _ = sanitised({f"ghp_{MIXED}": 1}, replacement="$bytes")
        assert found == {"$bytes": 1}

    @given(st.text(max_size=30), st.sampled_from(SAMPLES), st.text(max_size=30))
    def test_a_hint_matches_wherever_a_pattern_does(self, before, sample, after):
        text = before + sample[1] + after
        if any(re.search(rule.pattern, text) for rule in RULES):
            assert SANITISER.may_hold_secret(prepare({"a": [text]}).wire)
            assert SANITISER.may_hold_secret(prepare({text: 1}).wire)
            assert SANITISER.clean_text(text) != (text, 0)

    def test_a_text_with_lone_surrogates_does_not_matter(self):
        assert SANITISER.clean_text(f"\ud800 ghp_{MIXED}") == (f"\ud800 {REPLACEMENT}", 1)


HOSTILE = [
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY----- A",
    "-----BEGIN RSA PRIVATE KEY-----\nAAAAAAAAAAAAAAAA",
    "-",
    "AKIA",
    "eyJ",
    "eyJ.",
    "eyJaaaaaaaaaa.",
    "ghp_",
    "github_pat_",
    "glpat-a.",
    "xoxb-",
    "xapp-1-",
    "sk-",
    "sk-a",
    "AIza",
    "ya29.",
    "://",
    "://a:",
    "a://a:b",
    ":@",
    "Bearer a",
    "Bearer  ",
    "authorization: ",
    "authorization: bearer ",
    "secret_key = ",
    "secretKey",
    "AccountKey=",
    "npm_",
    "whsec_/",
    "sk_live_",
    "gsk_",
    "gsk_a",
    "xai-a",
    "SG.",
    f"SG.{MIXED[:22]}.",
    "hvs.",
    "hvs.a",
    "shpat_a",
    "dop_v1_a",
    "1:AA",
    "123456789:AA",
    "hooks.slack.com/services/",
    "hooks.slack.com/services/A",
    "API_KEY=",
    "API_KEY=a",
    "API_KEY=-",
    "A_TOKEN=1",
]


class TestCost:
    @pytest.mark.thorough
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("piece", HOSTILE)
    def test_no_text_takes_more_than_linear_time(self, piece):
        # Not timed: a rule that takes quadratic time runs into the timeout of every test.
        text = piece * (400_000 // len(piece))
        for rule in RULES:
            re.search(rule.pattern, text)
            re.search(rule.pattern, text + "@")
        SANITISER.clean_text(text + "\x00@")

    def test_parts_of_long_wires_are_searched_once(self, monkeypatch):
        searched: list[bytes] = []
        real = sanitise._has_hint

        def has_hint(wire):
            searched.append(wire)
            return real(wire)

        monkeypatch.setattr(sanitise, "_has_hint", has_hint)
        monkeypatch.setattr(sanitise, "native", None)  # it is faster than remembering
        sanitiser = Sanitiser()
        messages = [{"role": "user", "content": f"message {n} " * 20} for n in range(60)]
        prepare({"messages": messages}, sanitiser=sanitiser)
        searched.clear()
        messages.append({"role": "user", "content": "a new one"})
        assert prepare({"messages": messages}, sanitiser=sanitiser).sanitised_count == 0
        assert sum(map(len, searched)) < 500

    def test_a_long_wire_with_a_secret_is_cleaned_each_time(self):
        sanitiser = Sanitiser()
        messages = [{"role": "user", "content": f"message {n} " * 20} for n in range(60)]
        messages[30]["content"] += f"ghp_{MIXED}"
        for _ in range(3):
            prepared = prepare({"messages": messages}, sanitiser=sanitiser)
            assert prepared.sanitised_count == 1
            assert MIXED.encode() not in prepared.wire
            messages.append({"role": "user", "content": "more"})

    @given(st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=3), st.integers(0, 40))
    def test_long_and_short_wires_agree(self, samples, where):
        texts = [f"filler {number}: " + "word " * 30 for number in range(40)]
        texts[where:where] = [text for _, text, _ in samples]
        long, count = sanitised([{"text": text} for text in texts])
        assert count >= len(samples)
        assert [item["text"] for item in long] == [SANITISER.clean_text(text)[0] for text in texts]

    def test_what_is_remembered_is_bounded(self, monkeypatch):
        monkeypatch.setattr(sanitise, "native", None)
        sanitiser = Sanitiser()
        for number in range(30):
            value = {f"key {number} {n}": f"text {number} {n} " * 3 for n in range(3000)}
            prepare(value, sanitiser=sanitiser)
        assert len(sanitiser._clean_parts) <= sanitise._PARTS_REMEMBERED
        assert len(sanitiser.key_is_secret.__self__) <= sanitise._KEYS_REMEMBERED  # type: ignore[attr-defined]


class TestSettings:
    def test_disabled(self):
        value = {"password": "x", "text": f"ghp_{MIXED}", f"ghp_{MIXED}": 1}
        assert sanitised(value, enabled=False, extra_patterns=["."]) == (value, 0)

    def test_extra_keys(self):
        options = {"extra_keys": ["Session ID", "пароль", "pin"]}
        value = {"session_id": "a", "Пароль": "b", "PIN": "c", "pin_code": "d", "token": "e"}
        found, count = sanitised(value, **options)
        assert count == 4
        assert found["pin_code"] == "d"

    def test_keep_keys(self):
        value = {"token": "the", "Access-Token": "b"}
        assert sanitised(value, keep_keys=["token"]) == ({**value, "Access-Token": REPLACEMENT}, 1)
        assert sanitised({"pin": "1"}, extra_keys=["pin"], keep_keys=["PIN"]) == ({"pin": "1"}, 0)

    def test_extra_patterns(self):
        options = {"extra_patterns": [r"\b\d{3}-\d{2}-\d{4}\b", re.compile(r"pin=(?P<secret>\d+)")]}
        value = {"a": "ssn 123-45-6789, pin=1234", "b": f"x ghp_{MIXED}", "c": "1"}
        expected = {"a": f"ssn {REPLACEMENT}, pin={REPLACEMENT}", "b": f"x {REPLACEMENT}", "c": "1"}
        assert sanitised(value, **options) == (expected, 3)

    def test_a_pattern_that_matches_nothing_at_all(self):
        assert sanitised(["abc"], extra_patterns=["x*", "(?P<secret>x)?a"]) == (["abc"], 0)

    def test_replacement(self):
        assert sanitised({"password": "x", "t": f"ghp_{MIXED}"}, replacement="") == (
            {"password": "", "t": ""},
            2,
        )

    def test_a_replacement_that_looks_like_a_secret_is_counted_once(self):
        options = {"replacement": "XXXXXXXXXXXXXXX0"}
        once, count = sanitised([f"Bearer {MIXED}"], **options)
        assert (once, count) == ([f"Bearer {options['replacement']}"], 1)
        assert sanitised(once, **options) == (once, 0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"extra_patterns": ["("]}, r"extra_patterns has '\(', which is no regular expression"),
            ({"extra_patterns": [b"a"]}, "which is over bytes, not text"),
            ({"extra_patterns": [1]}, "is no regular expression"),
            ({"extra_patterns": "abc"}, "extra_patterns is of type str; a list"),
            ({"extra_keys": None}, "extra_keys is of type NoneType; a list"),
            ({"extra_keys": "pin"}, "extra_keys is of type str; a list"),
            ({"keep_keys": ["--"]}, "keep_keys has '--', which is no text with"),
            ({"keep_keys": [1]}, "keep_keys has 1, which is no text with"),
            ({"replacement": None}, "replacement is no text"),
            ({"replacement": "\ud800"}, "replacement is no text"),
            (
                {"replacement": "abc", "extra_patterns": "b"},
                "extra_patterns is of type str; a list",
            ),
            ({"replacement": "abc", "extra_patterns": ["b"]}, "would itself be taken for"),
        ],
    )
    def test_bad_settings(self, options, message):
        with pytest.raises(SettingsError, match=message) as caught:
            Sanitiser(**options)
        assert caught.value.context["argument"] in options


class TestValues:
    @given(values)
    def test_sanitising_keeps_what_is_no_secret(self, value):
        prepared = prepare(value, sanitiser=SANITISER)
        if prepared.sanitised_count == 0:
            assert prepared == prepare(value)
        again = prepare(decode(prepared.wire), sanitiser=SANITISER)
        assert again.wire == prepared.wire
        assert again.sanitised_count == 0

    def test_json_inside_a_text_is_searched_by_shape_only(self):
        text = json.dumps({"password": "hunter2", "token": f"ghp_{MIXED}"})
        found, count = sanitised({"arguments": text})
        assert count == 1
        assert json.loads(found["arguments"]) == {"password": "hunter2", "token": REPLACEMENT}
