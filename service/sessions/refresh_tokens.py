"""Refresh tokens: `rt_` and 72 characters that only this installation can write.

    rt_ base64url( version 1 | user id 16 | session id 16 | generation 5 | HMAC-SHA256 cut to 16 )

54 bytes make exactly 72 characters, so each token has one spelling. A token is computed from what it names, never
stored: the same input gives the same token, which makes a retry harmless, and garbage is refused without Redis.
"""

import base64
import re
from typing import NamedTuple

from service.errors import InvalidRefreshToken
from service.ids import id_bytes, id_text
from service.vault import Vault

_FORM = re.compile(r"rt_([A-Za-z0-9_-]{72})", re.ASCII)
_VERSION = b"\x01"


class RefreshToken(NamedTuple):
    """What a refresh token says: the holder of generation `generation` of this session of this user."""

    user_id: str
    session_id: str
    generation: int = 0


class RefreshTokens:
    """Writes and reads refresh tokens."""

    def __init__(self, vault: Vault) -> None:
        self._key = vault.key("refresh-token")

    def write(self, token: RefreshToken) -> str:
        """The one spelling of this token."""
        body = _VERSION + id_bytes(token.user_id) + id_bytes(token.session_id) + token.generation.to_bytes(5, "big")
        return "rt_" + base64.urlsafe_b64encode(body + self._key.mac(body)[:16]).decode("ascii")

    def read(self, text: str) -> RefreshToken:
        """What an authentic token says; raises `InvalidRefreshToken`."""
        if not (form := _FORM.fullmatch(text)):
            raise InvalidRefreshToken
        raw = base64.urlsafe_b64decode(form[1])
        body, mac = raw[:-16], raw[-16:]
        if not self._key.verify(body, mac) or body[:1] != _VERSION:
            raise InvalidRefreshToken
        return RefreshToken(id_text(body[1:17]), id_text(body[17:33]), int.from_bytes(body[33:], "big"))
