"""Is this access token still good? Its signature and claims, then one look at the sessions of its user."""

from service.errors import TokenRevoked, TokenStale
from service.sessions.families import Families
from service.tokens.access import AccessTokens, Principal


class Check:
    """Decides about access tokens, strictly: what was ended anywhere is refused here at once.

    It asks for positive state, the session, and so fails closed: an eviction, a flush or a lost write signs people
    out, never in. The looks of concurrent requests share a round trip.
    """

    def __init__(self, tokens: AccessTokens, families: Families) -> None:
        self._tokens = tokens
        self._families = families

    async def principal(self, text: str) -> Principal:
        """Who is asking; raises `InvalidToken`, `TokenExpired`, `TokenRevoked` or `TokenStale`."""
        await self.still(principal := self._tokens.read(text))
        return principal

    async def still(self, principal: Principal) -> None:
        """Raise `TokenRevoked` or `TokenStale` unless what was true of this person when they came still is."""
        standing = await self._families.standing(principal.user_id, principal.session_id, principal.jti)
        if not standing.live or standing.revoked:
            raise TokenRevoked
        if standing.epoch != principal.epoch:
            raise TokenStale
