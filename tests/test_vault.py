"""What is made from `AUTH_SECRET`."""

import hashlib
import hmac

import pytest

from service.vault import Hmac, Vault


@pytest.mark.parametrize("key_length", [0, 1, 32, 63, 64, 65, 200])
@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 63, 64, 65, 1000])
def test_a_mac_is_the_one_of_the_standard(key_length, length):
    key, message = bytes(range(key_length)), b"\xff" * length

    made = Hmac(key)

    assert made.of(message) == hmac.digest(key, message, hashlib.sha256)
    assert made.of(message) == made.of(message)  # nothing of the one before is left in it


def test_a_mac_by_an_older_secret_is_still_known_and_any_other_is_not():
    before, now = Vault(["the older secret, long enough it is"]), Vault(["new", "the older secret, long enough it is"])
    mac = before.key("csrf").mac(b"message")

    assert now.key("csrf").verify(b"message", mac)
    assert now.key("csrf").verify(b"message", mac[:16])
    assert now.key("csrf").mac(b"message") != mac
    assert not now.key("csrf").verify(b"message", mac[:15])
    assert not now.key("csrf").verify(b"another", mac)
    assert not now.key("refresh-token").verify(b"message", mac)
    assert not Vault(["new"]).key("csrf").verify(b"message", mac)
