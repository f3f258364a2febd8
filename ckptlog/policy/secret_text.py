r"""Which parts of a text are secrets: one table of shapes, each explained in one line.

Each rule has two expressions. `pattern` is exact and runs over single texts. `hints` are cheap and
run over the wire (JSON) of whole values, at every write. They obey these laws, tested on each rule:
- Wherever the pattern matches in a text, a hint matches in the text and in its JSON (in which a
  quote or a backslash is two characters, and a line break is a backslash and a letter).
- No hint matches across `","`: a value may be searched in parts.
- Every repetition that could be run into twice is bounded or possessive, so that no text takes
  more than linear time: texts come from tools and strangers.

A shape begins at a border: no letter or digit stands before it, unless it is the end of an
escaped line break (JSON inside a text).
"""

from __future__ import annotations

from typing import Final, NamedTuple

_BORDER: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
_QUOTES: Final = r"[\"'\\ ]{0,6}"
_QUOTES_IN_WIRE: Final = r"[\"'\\ ]{0,12}"
_ASSIGNED: Final = r"=[\"'\\]{0,6}[A-Za-z0-9_+/=-]{20}"
_SCHEME: Final = r"(?:[Bb]earer|BEARER|[Bb]asic|BASIC|[Tt]oken|[Dd]igest) {1,8}"
_KEY_BLOCK: Final = r"(?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----"


class Hint(NamedTuple):
    """An expression around one rare letter, for which the wire is searched first.

    before, after: What stands on each side; before has a fixed width.
    then: The byte that after begins with, or the set of those that it can.
    needs: Another letter without which the search can be spared.
    """

    before: str
    letter: str
    then: str
    after: str
    needs: str = ""


class Rule(NamedTuple):
    """One shape of secret.

    name: What it is.
    why: How it is recognised, in one line.
    hints: Over the wire; one of them matches where the pattern does.
    pattern: Over a text; the group `secret`, or the whole match, is replaced.
    """

    name: str
    why: str
    hints: tuple[Hint, ...]
    pattern: str


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "private key",
        "A PEM block between BEGIN and END ... PRIVATE KEY with key material between them.",
        (Hint("PRI", "V", "A", r"ATE KEY(?: BLOCK)?-----"),),
        rf"-----BEGIN {_KEY_BLOCK}(?=[\s\S]{{0,200}}?[A-Za-z0-9+/]{{32}})"
        rf"(?:[^-]++|-(?!----))*+-----END {_KEY_BLOCK}",
    ),
    Rule(
        "cut private key",
        "BEGIN ... PRIVATE KEY and lines of base64 after it; the end of the text was cut off.",
        (Hint("PRI", "V", "A", r"ATE KEY(?: BLOCK)?-----"),),
        rf"-----BEGIN {_KEY_BLOCK}(?:(?:\s|\\[nr])+[A-Za-z0-9+/=]{{16,}})+",
    ),
    Rule(
        "AWS access key id",
        "AKIA (lasting) or ASIA (temporary) and 16 capitals or digits.",
        (Hint("A[KS]", "I", "A", r"A[A-Z0-9]{16}"),),
        r"(?:(?<![A-Za-z0-9+/])|(?<=\\[nrt]))A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9+/=])",
    ),
    Rule(
        "AWS secret access key",
        "40 characters of base64 after secret_access_key or secret_key and a colon or equals sign.",
        (
            Hint("secret", "_", "[ak]", rf"(?:access_)?key{_QUOTES_IN_WIRE}[:=]"),
            Hint("SECRET", "_", "[AK]", rf"(?:ACCESS_)?KEY{_QUOTES_IN_WIRE}[:=]"),
            Hint("secret", "-", "[ak]", rf"(?:access-)?key{_QUOTES_IN_WIRE}[:=]"),
            Hint("ecret", "K", "e", rf"ey{_QUOTES_IN_WIRE}[:=]"),
            Hint("ecretAccess", "K", "e", rf"ey{_QUOTES_IN_WIRE}[:=]"),
        ),
        r"(?:secret_(?:access_)?key|SECRET_(?:ACCESS_)?KEY|secret-(?:access-)?key"
        rf"|[sS]ecret(?:Access)?Key){_QUOTES}[:=]>?{_QUOTES}"
        r"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    ),
    Rule(
        "GitHub token",
        "ghp_, gho_, ghu_, ghs_, ghr_ or github_pat_ and at least 22 letters and digits.",
        (
            Hint("gh[pousr]", "_", "[A-Za-z0-9]", r"[A-Za-z0-9]{30}"),
            Hint("github_pat", "_", "[A-Za-z0-9_]", r"[A-Za-z0-9_]{22}"),
        ),
        _BORDER + r"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,})",
    ),
    Rule(
        "GitLab token",
        "glpat- and its sisters for deploy, runner, trigger and job, and at least 20 characters.",
        (
            Hint("gl[dr]t", "-", "[A-Za-z0-9_-]", r"[A-Za-z0-9_-]{20}"),
            Hint("gl[cp][abt]t", "-", "[A-Za-z0-9_-]", r"[A-Za-z0-9_-]{20}"),
        ),
        _BORDER + r"gl(?:[dr]t|pat|ptt|cbt)-[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9_-]+)*",
    ),
    Rule(
        "Slack token",
        "xox and a letter for its kind (b, p, a, ...), or xapp, and letters with a digit.",
        (
            Hint("xo", "x", "[abeoprs]", r"[abeoprs]-[A-Za-z0-9-]{10}"),
            Hint("xapp", "-", "[0-9]", r"[0-9]-[A-Za-z0-9-]{10}"),
        ),
        _BORDER + r"(?:xox[abeoprs]-(?=[A-Za-z-]{0,40}[0-9])|xapp-[0-9]-)[A-Za-z0-9-]{10,}",
    ),
    Rule(
        "OpenAI or Anthropic key",
        "sk- (also sk-proj-, sk-ant-) and at least 20 characters with a capital, digit or _.",
        (Hint("sk", "-", "[A-Za-z0-9_-]", r"[A-Za-z0-9_-]{20}"),),
        r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))sk-(?=[a-z-]*+[A-Z0-9_])[A-Za-z0-9_-]{20,}",
    ),
    Rule(
        "Google API key",
        "AIza and exactly 35 more characters.",
        (Hint("AI", "z", "a", r"a[A-Za-z0-9_-]{35}"),),
        _BORDER + r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",
    ),
    Rule(
        "Google OAuth secret",
        "ya29. (access token) or GOCSPX- (client secret) and at least 20 characters.",
        (
            Hint("ya2", "9", r"\.", r"\.[A-Za-z0-9_-]{20}"),
            Hint("GOCSPX", "-", "[A-Za-z0-9_-]", r"[A-Za-z0-9_-]{20}"),
        ),
        _BORDER + r"(?:ya29\.|GOCSPX-)[A-Za-z0-9_-]{20,}",
    ),
    Rule(
        "Stripe key",
        "sk or rk, _live_ or _test_, or whsec_ (webhooks), and at least 16 letters and digits.",
        (
            Hint("[rs]k", "_", "[lt]", r"(?:live|test)_[A-Za-z0-9]{16}"),
            Hint("whsec", "_", "[A-Za-z0-9+/]", r"[A-Za-z0-9+/]{24}"),
        ),
        _BORDER + r"(?:[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,}=*)",
    ),
    Rule(
        "package or model hub token",
        "npm_, hf_ or pypi- and at least 30 letters and digits.",
        (
            Hint("npm", "_", "[A-Za-z0-9]", r"[A-Za-z0-9]{30}"),
            Hint("hf", "_", "[A-Za-z0-9]", r"[A-Za-z0-9]{30}"),
            Hint("pypi", "-", "[A-Za-z0-9_-]", r"[A-Za-z0-9_-]{40}"),
        ),
        _BORDER + r"(?:(?:npm|hf)_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{40,})",
    ),
    Rule(
        "Groq or xAI key",
        "gsk_ or xai- and at least 40 letters and digits.",
        (
            Hint("gsk", "_", "[A-Za-z0-9]", r"[A-Za-z0-9]{40}"),
            Hint("xai", "-", "[A-Za-z0-9]", r"[A-Za-z0-9]{40}"),
        ),
        _BORDER + r"(?:gsk_|xai-)[A-Za-z0-9]{40,}",
    ),
    Rule(
        "SendGrid key",
        "SG., exactly 22 characters, a dot, and exactly 43 more.",
        (Hint("S", "G", r"\.", r"\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),),
        _BORDER + r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
    ),
    Rule(
        "Vault token",
        "hvs. (service), hvb. (batch) or hvr. (recovery) and at least 24 characters with a digit.",
        (Hint("h", "v", "[sbr]", r"[sbr]\.[A-Za-z0-9_-]{24}"),),
        _BORDER + r"hv[sbr]\.(?=[A-Za-z_-]{0,60}[0-9])[A-Za-z0-9_-]{24,}",
    ),
    Rule(
        "Shopify token",
        "shpat_, shpca_, shppa_ or shpss_ and exactly 32 hexadecimal digits.",
        (Hint("shp[acps][ats]", "_", "[a-fA-F0-9]", r"[a-fA-F0-9]{32}"),),
        _BORDER + r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}(?![A-Za-z0-9])",
    ),
    Rule(
        "DigitalOcean token",
        "dop_v1_, doo_v1_ or dor_v1_ and exactly 64 hexadecimal digits.",
        (Hint("do[por]_v1", "_", "[a-f0-9]", r"[a-f0-9]{64}"),),
        _BORDER + r"do[por]_v1_[a-f0-9]{64}(?![A-Za-z0-9])",
    ),
    Rule(
        "Telegram bot token",
        "8 to 10 digits, a colon, AA and exactly 33 more characters; also after bot, as in URLs.",
        (Hint("[0-9]:", "A", "A", r"A[A-Za-z0-9_-]{33}"),),
        r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=/bot))[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"
        r"(?![A-Za-z0-9_-])",
    ),
    Rule(
        "Slack webhook",
        "What follows hooks.slack.com/services/ (workflows, triggers): two ids and a key.",
        (
            Hint("com/services/", "T", "[A-Z0-9]", r"[A-Z0-9]{5,19}/"),
            Hint("com/workflows/", "T", "[A-Z0-9]", r"[A-Z0-9]{5,19}/"),
            Hint("com/triggers/", "T", "[A-Z0-9]", r"[A-Z0-9]{5,19}/"),
        ),
        r"hooks\.slack\.com/(?:services|workflows|triggers)/"
        r"(?P<secret>T[A-Z0-9]{5,19}/[A-Z0-9]{6,20}/[A-Za-z0-9]{16,}(?:/[A-Za-z0-9]{16,})?)",
    ),
    Rule(
        "Azure storage key",
        "AccountKey= in a connection string and at least 40 characters of base64.",
        (Hint("Account", "K", "e", r"ey=[A-Za-z0-9+/]{40}"),),
        r"AccountKey=(?P<secret>[A-Za-z0-9+/]{40,}={0,2})",
    ),
    Rule(
        "JSON web token",
        'Three base64url parts parted by dots, the first one beginning with eyJ, which is {".',
        (Hint("ey", "J", "[A-Za-z0-9_-]", r"[A-Za-z0-9_-]{10}"),),
        r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+"
        r"\.[A-Za-z0-9_-]{10,}",
    ),
    Rule(
        "authorization header",
        "What follows Authorization: and a scheme (Bearer, Basic, Token, Digest).",
        (Hint("[Aa]uthori", "z", "a", rf"ation{_QUOTES_IN_WIRE}[:=]{_QUOTES_IN_WIRE}{_SCHEME}"),),
        rf"[Aa]uthorization{_QUOTES}[:=]{_QUOTES}{_SCHEME}"
        r"(?P<secret>[A-Za-z0-9._~+/=-]{8,})",
    ),
    Rule(
        "bearer token",
        "At least 16 characters, one of them a digit, after Bearer.",
        (Hint("", "B", "[eE]", r"(?:earer|EARER) {1,8}[A-Za-z0-9._~+/=-]{16}"),),
        _BORDER + r"(?:Bearer|BEARER) {1,8}(?=[A-Za-z._~+/=-]{0,80}[0-9])"
        r"(?P<secret>[A-Za-z0-9._~+/=-]{16,})",
    ),
    Rule(
        "password in a URL",
        "What stands between user: and @ after ://, unless it is a template ({name}, $NAME).",
        (
            Hint(
                "",
                ":",
                "/",
                r"//[^\s/:@\"'<>]{0,1024}:[^\s/:@\"'<>][^\s/@\"'<>]{0,1024}@",
                needs="@",
            ),
        ),
        r"(?<=[A-Za-z0-9])://[^\s/:@\"'<>\\]{0,200}:(?![{$<*\[]|%[s(])"
        r"(?P<secret>[^\s/@\"'<>\\]{1,200})@(?=[\w\[])",
    ),
    Rule(
        "key in an environment",
        "20 or more letters and digits, both, right after API_KEY=, AUTH_TOKEN= and the like.",
        (
            Hint("API_", "K", "E", rf"EY{_ASSIGNED}"),
            Hint("RET_", "K", "E", rf"EY{_ASSIGNED}"),
            Hint("ESS_", "K", "E", rf"EY{_ASSIGNED}"),
            Hint("[SHITUBF]_TO", "K", "E", rf"EN{_ASSIGNED}"),
        ),
        r"(?<![A-Za-z0-9])(?:(?:API|SECRET|ACCESS)_KEY"
        r"|(?:ACCESS|AUTH|API|BOT|GITHUB|GITLAB|HF)_TOKEN)=[\"'\\]{0,3}"
        r"(?=[A-Za-z_+/=-]{0,100}[0-9])(?=[0-9_+/=-]{0,100}[A-Za-z])"
        r"(?P<secret>[A-Za-z0-9_+/=-]{20,}+)(?![.:(\[{<$])",
    ),
)
