"""Which keys name a secret: decided by whole words, so that `max_tokens` and `secretary` do not.

A key is cut into words where its case or its punctuation changes: `apiKey`, `API_KEY`, `x-api-key`
and `api key 2` all hold the words api, key. Every table below is of such words. Words that were
written as one count where no other word ends so (`PGPASSWORD`), or by their owner (`dbpass`).
"""

from __future__ import annotations

import re
from typing import Final

_KEY_CHARACTERS_MAX: Final = 100  # a longer key is a text, and no name of anything

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Secret wherever they stand in the key.
_WORDS: Final = _words("""
    accesskey accesstoken apikey apikeys apitoken authorization authtoken clientsecret credential
    credentials creds jsessionid passcode passphrase passwd password passwords phpsessid privatekey
    refreshtoken secret secretkey secrets sessiontoken
""")

# Secret as two neighbouring words.
_KEY_OWNERS: Final = _words("""
    access account api auth deploy encryption hmac master private signing ssh subscription
""")
_COOKIE_OWNERS: Final = _words("auth csrf http login session set")
_LOGIN_OWNERS: Final = _words("""
    admin auth database db ftp ldap login mail mongo mysql pg postgres proxy redis root smtp ssh
    user
""")
# Whoever has nothing else of this name to give out. `firebase key` and `sentry key` are no secrets.
_VENDORS: Final = _words("""
    anthropic aws azure cloudflare cohere datadog deepgram deepseek digitalocean elevenlabs gemini
    github gitlab google groq heroku huggingface jina langchain langsmith llm mailgun mistral
    newrelic openai openrouter perplexity pinecone sendgrid serpapi serper slack stripe tavily
    telegram twilio wandb xai
""")
_SECRET_OWNERS: Final = _words("app consumer jwt oauth session shared webhook")
_PAIRS: Final = frozenset(
    {(owner, word) for owner in _KEY_OWNERS | _VENDORS for word in ("key", "keys")}
    | {(owner, word) for owner in _COOKIE_OWNERS for word in ("cookie", "cookies")}
    | {(owner, word) for owner in _LOGIN_OWNERS for word in ("pass", "pwd")}
    | {("pass", "word"), ("pass", "phrase"), ("auth", "header"), ("basic", "auth")}
    | {("http", "auth"), ("cookie", "header")}
)

# Secret words written as one with what stands before them; endings of nothing else.
_ENDINGS: Final = tuple(
    _words("""
        accesskey accesstoken apikey apikeys apitoken authtoken clientsecret passphrase passwd
        password passwords privatekey secretkey
    """)
)
# ... but for these, which tell what is done with a password, or that there is none.
_NO_ENDINGS: Final = _words("""
    changepassword checkpassword forgotpassword haspassword ispassword nopassword resetpassword
    showpassword
""")
_COMPOUNDS: Final = frozenset(
    {owner + word for owner in _LOGIN_OWNERS for word in ("pass", "pwd")}
    | {vendor + "key" for vendor in _VENDORS}
    | {owner + "secret" for owner in _SECRET_OWNERS}
)

# A last word that makes the key tell about a secret rather than hold it.
_DESCRIPTIONS: Final = _words("""
    age algorithm arn at backend count description enabled endpoint env expires expiry field file
    format help id ids index issuer kind label len length limit manager max min name names on path
    pattern placeholder policy prompt provider ref regex required rotation scope scopes server size
    status store strength ttl type uri url usage used valid var variable version
""")

# Before a last word `token`: text of language models, or a place in a list. A recovery needs both.
_TEXT_OWNERS: Final = _words("""
    additional assistant audio begin bos cached cls completion continuation current cursor end eos
    fencing fill first generated image input last mask max message min new next num output pad page
    per position predicted prev previous prompt resume sep separator sos special start stop sub sync
    system target think thinking tool total unk video watch word
""")

# Before a last word `tokens`: a list of secrets rather than a number of words.
_TOKEN_OWNERS: Final = _words("""
    access api auth bearer csrf github gitlab oauth personal refresh security session slack
""")


def words_of(key: str) -> tuple[str, ...]:
    """Return the words of a key in lower case; digits and punctuation only part them."""
    return tuple(word.casefold() for word in _WORD.findall(key))


def is_secret_key(key: str) -> bool:
    """Say whether the values under a key are secrets."""
    if len(key) > _KEY_CHARACTERS_MAX:
        return False
    words = words_of(key)
    if not words or words[-1] in _DESCRIPTIONS:
        return False
    return (
        not _WORDS.isdisjoint(words)
        or any(map(_is_compound, words))
        or not _PAIRS.isdisjoint(zip(words, words[1:], strict=False))
        or _is_token(words)
        or words in {("cookie",), ("cookies",), ("connect", "sid"), ("pass",)}
    )


def _is_compound(word: str) -> bool:
    return word in _COMPOUNDS or (word.endswith(_ENDINGS) and word not in _NO_ENDINGS)


def _is_token(words: tuple[str, ...]) -> bool:
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "token":
        return before not in _TEXT_OWNERS
    return words[-1] == "tokens" and before in _TOKEN_OWNERS
