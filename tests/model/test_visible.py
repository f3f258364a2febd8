from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ckptlog.model.visible import escape, escape_json


@given(st.text())
def test_a_document_means_the_same_after_it(text):
    document = json.dumps(text, ensure_ascii=False)
    assert json.loads(escape_json(document)) == text


@given(st.text())
def test_what_is_left_only_shows(text):
    shown = escape(text)
    assert shown.isprintable() or not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)
    assert "\u202e" not in shown
    assert escape(shown) == shown
