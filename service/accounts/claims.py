"""Claims: an email or an identity becomes the lookup of one account, also where another holds it without a right to it.

Keeps nothing: `lookups.py` keeps who has what, and here its steps are put in order. A holder whose record does not bear
the email or the identity gives way: a registration that was cut off, one under way, which then finds at its end that it
came second, or an account that is gone.
"""

import asyncio
from collections.abc import Awaitable, Callable

from service.accounts.lookups import Holder, Lookups
from service.accounts.user import Identity, User
from service.errors import EmailExists, IdentityInUse, ServiceError

_SECOND_LOOKS, _MOMENT = 10, 0.02  # how often, and every how many seconds, at a holder who may be about to give way


class Claims:
    """Claims lookups, and gives them up; `find` reads the record of a user by the id."""

    def __init__(self, lookups: Lookups, find: Callable[[str], Awaitable[User | None]]) -> None:
        self._lookups = lookups
        self._find = find

    async def email(self, user_id: str, email: str) -> str:
        """Claim an email in its one spelling; the lookup. Raises `EmailExists`."""
        lookup = await self._lookups.email(email)
        await self._claim(lookup, user_id, lambda found: found.email == email, EmailExists())
        return lookup

    async def identity(self, user_id: str, identity: Identity) -> str:
        """Claim an identity; the lookup. Raises `IdentityInUse`."""
        lookup = await self._lookups.identity(identity.issuer, identity.subject)
        await self._claim(
            lookup, user_id, lambda found: any(identity.same_as(held) for held in found.identities), IdentityInUse()
        )
        return lookup

    async def release_email(self, user_id: str, email: str) -> None:
        """Give up an email, if this user has it."""
        await self._lookups.release(await self._lookups.email(email), user_id)

    async def release_identity(self, user_id: str, identity: Identity) -> None:
        """Give up an identity, if this user has it."""
        await self._lookups.release(await self._lookups.identity(identity.issuer, identity.subject), user_id)

    async def _claim(self, lookup: str, user_id: str, leads: Callable[[User], bool], taken: ServiceError) -> None:
        """Claim a lookup, also from a holder to whom it does not lead; raises `taken` where it does."""
        if await self._lookups.claim(lookup, user_id):
            return
        holder = await self._lookups.holder(lookup)
        found = await self._find(holder.user_id) if holder else None
        if (found and leads(found)) or not await self._lookups.claim(lookup, user_id, instead_of=holder):
            raise taken
        if holder and found and not await self._leads_nowhere(holder, leads):
            await self._lookups.give_back(lookup, user_id, holder)
            raise taken

    async def _leads_nowhere(self, holder: Holder, leads: Callable[[User], bool]) -> bool:
        """Whether a lookup that was claimed from its holder still leads nowhere.

        The holder may have been about to write the record that it leads to. Written before the claim, it stands.
        Written after it, the holder finds the lookup gone and takes the record back, which is waited for.
        """
        for _ in range(_SECOND_LOOKS):
            found = await self._find(holder.user_id)
            if found is None or not leads(found):
                return True
            await asyncio.sleep(_MOMENT)
        return False
