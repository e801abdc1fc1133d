"""What the post does: each errand of the outbox becomes a letter, or nothing.

Here, and not in the request, it is decided whether an email has an account. So a request takes the same time
whatever the answer, and a one-time token exists only from the moment its letter leaves.
"""

from collections.abc import Iterable

from service.accounts.once import Once, Purpose
from service.accounts.user import User
from service.accounts.users import Users
from service.audit.events import Event
from service.audit.trail import Audit
from service.client import Client
from service.errors import EmailExists
from service.mail.letters import Kind, Letter
from service.mail.outbox import Errand

REGISTER = "register"


class Errands:
    """Does errands."""

    def __init__(self, users: Users, once: Once, audit: Audit) -> None:
        self._users = users
        self._once = once
        self._audit = audit

    async def do(self, errand: Errand) -> Letter | None:
        """Do what an errand asks for; the letter that is to be sent, `None` if there is none."""
        facts = dict(errand.facts)
        match errand.kind:
            case Kind.VERIFY:
                return await self._verify(await self._users.find(facts["user"]))
            case Kind.RESET:
                return await self._reset(facts["email"])
            case Kind.CHANGE:
                return await self._change(facts["user"], facts["new"])
            case "register":
                return await self._register(facts)
        kind, user_id, to = Kind(errand.kind), facts.pop("user", ""), facts.pop("to", "")
        if not to and (user := await self._users.find(user_id)):
            to = user.email
        return Letter(to, kind, facts) if to else None

    async def recipients(self, errands: Iterable[dict[str, str]]) -> list[str | None]:
        """The address that the letter of each errand goes to, by its facts; `None` where there is nobody."""
        errands = list(errands)
        ids = [facts.get("user", "") for facts in errands]
        users = {user.id: user.email for user in await self._users.find_all(filter(None, ids)) if user}
        return [_addressed(facts) or users.get(id_) for facts, id_ in zip(errands, ids, strict=True)]

    async def _verify(self, user: User | None) -> Letter | None:
        if user is None or user.email_verified or not user.active:
            return None
        token = await self._once.issue(Purpose.VERIFY, user.id, ("email", user.email))
        return Letter(user.email, Kind.VERIFY, token=token) if token else None

    async def _reset(self, email: str) -> Letter | None:
        user = await self._users.find_by_email(email)
        if user is None or not user.active:
            return None
        token = await self._once.issue(Purpose.RESET, user.id, ("email", user.email))
        return Letter(user.email, Kind.RESET, token=token) if token else None

    async def _change(self, user_id: str, new: str) -> Letter | None:
        user = await self._users.find(user_id)
        if user is None or user.new_email != new or not user.active:
            return None
        if await self._users.find_by_email(new):
            return Letter(new, Kind.EMAIL_TAKEN)
        token = await self._once.issue(Purpose.CHANGE, user.id, ("new", new))
        return Letter(new, Kind.CHANGE, token=token) if token else None

    async def _register(self, facts: dict[str, str]) -> Letter | None:
        """Make the account of a private registration, or tell the owner of the one there is."""
        draft = User(
            id="",
            email=facts["email"],
            password=facts["password"],
            first_name=facts.get("first_name"),
            last_name=facts.get("last_name"),
            name=facts.get("name"),
            private=True,
        )
        try:
            user = await self._users.register(draft)
        except EmailExists:
            existing = await self._users.find_by_email(draft.email)
            if existing is None or existing.password != draft.password:
                return Letter(draft.email, Kind.EMAIL_TAKEN)
            return await self._verify(existing)  # made by this errand, at a try before
        client = Client(facts["ip"], facts.get("agent", "")) if "ip" in facts else None
        await self._audit.record(Event.USER_REGISTERED, user_id=user.id, client=client)
        return await self._verify(user)


def _addressed(facts: dict[str, str]) -> str | None:
    """The address that stands in an errand; beside a user `email` is something that the letter tells."""
    return facts.get("to") or facts.get("new") or (None if "user" in facts else facts.get("email"))
