"""A code that people can read out and type, and that tells when they did not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.telemetry.enrolment import code as codes

HALF = st.binary(min_size=codes.HALF_BYTES, max_size=codes.HALF_BYTES)


@given(HALF, HALF)
def test_what_is_printed_is_read_again_however_it_is_typed(secret: bytes, pin: bytes) -> None:
    made = codes.EnrolCode(secret, pin)
    for typed in (
        made.text,
        made.text.lower(),
        made.text.replace("-", ""),
        made.text.replace("-", " ") + "\n",
        made.text.replace("0", "o").replace("1", "l"),
        made.text.replace("0", "O").replace("1", "I"),
    ):
        assert codes.parse(typed) == made


@given(HALF, HALF, st.data())
def test_one_wrong_symbol_or_two_in_the_wrong_order_are_noticed(secret: bytes, pin: bytes, data: st.DataObject) -> None:
    text = codes.EnrolCode(secret, pin).text.replace("-", "")
    at = data.draw(st.integers(0, len(text) - 2))
    other = data.draw(st.sampled_from(sorted(set("0123456789ABCDEFGHJKMNPQRSTVWXYZ") - {text[at]})))
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    for wrong in (text[:at] + other + text[at + 1 :], swapped):
        if wrong != text:
            with pytest.raises(RejectedInput):
                codes.parse(wrong)


@given(st.text(max_size=200))
def test_anything_else_is_refused_and_nothing_but_refused(text: str) -> None:
    try:
        made = codes.parse(text)
    except RejectedInput:
        return
    assert codes.parse(made.text) == made


def test_a_code_needs_no_quotes_shows_no_secret_and_is_never_the_same() -> None:
    made = [codes.make(bytes(codes.HALF_BYTES)) for _ in range(200)]
    assert len({code.secret for code in made}) == 200
    assert all(code.text.replace("-", "").isalnum() and code.text.isupper() for code in made)
    assert made[0].secret.hex() not in repr(made[0]) and made[0].text not in repr(made[0])
    assert [len(part) for part in made[0].text.split("-")] == [4] * 7 + [5]


def test_both_halves_have_80_bits() -> None:
    assert 8 * codes.HALF_BYTES == 80
