import pytest

from contract import InvalidRequest
from gateway.dialects.strict import SHOWN_VALUE_CHARACTERS, decode_json, show


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: must be a JSON object, got nothing"),
        (b" \n", "body: must be a JSON object, got nothing"),
        (b"{", "body: must be JSON: input data was truncated"),
        (b"{} x", "body: must be JSON: trailing characters (byte 4)"),
        (b"NaN", "body: must be JSON: invalid character (byte 0)"),
        (b'{"a": Infinity}', "body: must be JSON: invalid character (byte 6)"),
        (b"1e999", "body: must be JSON: number out of range"),
        (b"9" * 10_000, "body: must be JSON: integer value out of range"),
        (b'"\xff"', "body: must be UTF-8"),
        (b'"\xed\xa0\x80"', "body: must be UTF-8"),
        (b'"\\udc00"', "body: must be JSON: invalid utf-16 surrogate pair (byte 7)"),
        (b'\xef\xbb\xbf{"a": 1}', "body: must be JSON: invalid character (byte 0)"),
        (b"[" * 33 + b"]" * 33, "body: JSON must nest at most 32 levels deep"),
        (b"[" * 100_000, "body: JSON must nest at most 32 levels deep"),
        (b'{"a":' * 100_000, "body: JSON must nest at most 32 levels deep"),
        (b'"' + b'\\"' * 100_000 + b"[" * 40, "body: must be JSON: input data was truncated"),
    ],
)
def test_text_that_is_no_json_of_ours_is_refused_with_the_reason(body, message):
    with pytest.raises(InvalidRequest) as refusal:
        decode_json(body, max_depth=32)
    assert str(refusal.value) == message


def test_brackets_within_strings_and_side_by_side_do_not_count_as_depth():
    assert decode_json(b'["' + b"[" * 100 + b'"]', max_depth=32) == ["[" * 100]
    assert decode_json(b"[" + b"[]," * 100 + b"[]]", max_depth=32) == [[]] * 101
    assert decode_json(b'["a\\"[[", ' + b"[]," * 50 + b"[]]", max_depth=2)[0] == 'a"[['


def test_the_deepest_allowed_json_is_read():
    assert decode_json(b"[" * 32 + b"]" * 32, max_depth=32) is not None


def test_a_shown_value_is_json_and_short():
    assert show("“é”") == '"“é”"'
    assert len(show("x" * 10_000)) == SHOWN_VALUE_CHARACTERS + 1
