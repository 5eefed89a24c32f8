"""The written form of API keys, and what is stored of them."""

import hashlib
import hmac
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.keys import HMAC_SHA256, SHA256, KeyToken, hash_secret, new_token, read_token

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
URL_SAFE = string.ascii_letters + string.digits + "_-"
PREFIX = "abcdefghij01"


def test_a_new_token_has_the_promised_form_and_is_read_back() -> None:
    token = new_token()
    assert re.fullmatch(r"sbk_[0-9a-z]{12}\.[0-9A-Za-z]{49}", token.written)
    assert read_token(token.written) == token


def test_no_two_tokens_are_alike() -> None:
    tokens = [new_token() for _ in range(200)]
    assert len({token.secret for token in tokens}) == len({token.prefix for token in tokens}) == 200


def test_every_letter_of_the_alphabet_is_used() -> None:
    assert set("".join(new_token().secret for _ in range(200))) == set(BASE62)


@given(st.integers(0, 65), st.sampled_from(BASE62))
def test_one_wrong_letter_anywhere_is_noticed(place: int, letter: str) -> None:
    text = KeyToken(PREFIX, "A" * 43).written
    changed = text[:place] + letter + text[place + 1 :]
    assert (read_token(changed) is None) == (changed != text)


def test_the_checksum_is_the_crc_of_what_stands_before_it() -> None:
    # Written down once: a scanner elsewhere has to come to the same six letters for ever.
    assert KeyToken("000000000000", "0" * 43).written == "sbk_000000000000." + "0" * 43 + "0tB2U8"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sbk_",
        "sbk_abc.def",
        f"sbk_{PREFIX}.{'a' * 42}",
        f"sbk_{PREFIX}.{'a' * 44}",
        f"sbk_{PREFIX.upper()}.{'a' * 43}",
        f"sbx_{PREFIX}.{'a' * 43}",
        f"sbk_{PREFIX}{'a' * 43}",
        f"sbk_{PREFIX}.{'a' * 43}\n",
        f" sbk_{PREFIX}.{'a' * 43}",
        f"sbk_{PREFIX}.{'ä' * 43}",
        f"sbk_{'٣' * 12}.{'a' * 43}",
        f"sbk_{PREFIX}.{'a' * 43}\0",
    ],
)
def test_what_is_no_token_is_not_read(text: str) -> None:
    assert read_token(text) is None


@given(st.text(alphabet=URL_SAFE, min_size=43, max_size=43))
def test_a_key_of_the_reference_is_read_as_one(secret: str) -> None:
    token = read_token(f"sbk_{PREFIX}.{secret}")
    assert token is not None
    assert (token.prefix, token.secret, token.algorithm) == (PREFIX, secret, SHA256)


def test_a_token_that_lost_its_checksum_is_not_hashed_like_ours() -> None:
    token = new_token()
    cut = read_token(token.written[:-6])
    assert cut is not None
    assert cut.algorithm != token.algorithm


def test_the_stored_form_is_a_keyed_hash() -> None:
    expected = hmac.new(b"pepper", b"secret", hashlib.sha256).hexdigest()
    assert hash_secret("secret", HMAC_SHA256, b"pepper") == expected
    assert hash_secret("secret", HMAC_SHA256, b"other") != expected


def test_the_stored_form_of_the_reference_is_plain_sha256() -> None:
    assert hash_secret("secret", SHA256, b"pepper") == hashlib.sha256(b"secret").hexdigest()


def test_an_unknown_algorithm_is_an_error() -> None:
    with pytest.raises(ValueError, match="md5"):
        hash_secret("secret", "md5", b"")


def test_a_secret_stays_out_of_what_is_printed() -> None:
    token = new_token()
    assert token.secret not in repr(token)
