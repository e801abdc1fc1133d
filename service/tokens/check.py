"""Is this access token still good? Its signature and claims, then one look at the sessions of its user."""

from service.accounts.user import User
from service.accounts.users import Users
from service.errors import InvalidToken, TokenRevoked, TokenStale
from service.sessions.families import Families, Standing
from service.tokens.access import AccessTokens, Principal


class Check:
    """Decides about access tokens, strictly: what was ended anywhere is refused here at once.

    It asks for positive state, the session, and so fails closed: an eviction, a flush or a lost write signs people
    out, never in. The looks of concurrent requests share a round trip. With `REVOCATION=tracked` what Redis said before
    is believed until Redis tells that it has changed, and for two seconds at most when Redis is not heard.
    """

    def __init__(self, tokens: AccessTokens, families: Families, users: Users) -> None:
        self._tokens = tokens
        self._families = families
        self._users = users

    async def principal(self, text: str, lately: bool = False) -> Principal:
        """Who is asking; raises `InvalidToken`, `TokenExpired`, `TokenRevoked` or `TokenStale`.

        `lately`: what was true two seconds ago will do, with `REVOCATION=tracked`; for what changes nothing.
        """
        await self.still(principal := self._tokens.read(text), lately)
        return principal

    async def person(self, text: str) -> tuple[Principal, User]:
        """Who is asking, with the account, which is read in the same round trip; raises what `principal` raises."""
        principal = self._tokens.read(text)
        standing, record = await self._families.standing_and(
            principal.user_id, principal.session_id, principal.jti, self._users.reading(principal.user_id)
        )
        _decide(principal, standing)
        if (user := User.read(principal.user_id, record)) is None:
            raise InvalidToken("The account is gone")
        return principal, user

    async def still(self, principal: Principal, lately: bool = False) -> None:
        """Raise `TokenRevoked` or `TokenStale` unless what was true of this person when they came still is."""
        standing = await self._families.standing(principal.user_id, principal.session_id, principal.jti, lately)
        _decide(principal, standing)


def _decide(principal: Principal, standing: Standing) -> None:
    if not standing.live or standing.revoked:
        raise TokenRevoked
    if standing.epoch != principal.epoch:
        raise TokenStale
