"""A user, and how a record says so: who a person is, where else they have identities, and what they may do.

Keeps nothing: the records are those of `users.py`, which lists their fields. One that is absent stands for what nearly
everybody has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar

import orjson

from service.accounts.roles import ADMIN, USER
from service.clock import moment, stamp

NO_TIME = datetime.fromtimestamp(0, UTC)
_moment = lru_cache(maxsize=8192)(moment)  # whoever asks for their account asks again


@dataclass(frozen=True)
class Identity:
    """An account elsewhere that signs in here. Issuer and subject are the identity; the email is for display."""

    provider: str
    issuer: str
    subject: str
    email: str | None = None
    linked_at: datetime = NO_TIME

    @classmethod
    def read(cls, provider: str, text: str) -> "Identity":
        """The identity in a field of a record."""
        issuer, subject, email, linked = orjson.loads(text)
        return cls(provider, issuer, subject, email, _moment(linked))

    def written(self) -> str:
        """The value of that field."""
        return orjson.dumps([self.issuer, self.subject, self.email, str(stamp(self.linked_at))]).decode()

    def same_as(self, other: "Identity | None") -> bool:
        """Whether it is one (OpenID Connect Core, section 5.7)."""
        return other is not None and (self.issuer, self.subject) == (other.issuer, other.subject)


@dataclass(frozen=True)
class User:
    """A person's account. `password` is a PHC string, or empty when there is none."""

    id: str
    email: str
    password: str = field(default="", repr=False)
    email_verified: bool = False
    first_name: str | None = None
    last_name: str | None = None
    name: str | None = None
    picture: str | None = None
    roles: tuple[str, ...] = (USER,)
    provider: str = "local"
    active: bool = True
    created_at: datetime = NO_TIME
    updated_at: datetime = NO_TIME
    last_login_at: datetime | None = None
    identities: tuple[Identity, ...] = ()
    new_email: str | None = None
    leaving_since: datetime | None = None  # when its deletion began
    private: bool = False  # registered where the answer does not tell whether the email had an account

    @classmethod
    def read(cls, user_id: str, record: Mapping[str, str]) -> "User | None":
        """The user of a record, `None` if there is none."""
        if "email" not in record:
            return None
        linked = sorted([name for name in record if name.startswith("id:")])
        return cls(
            id=user_id,
            email=record["email"],
            password=record.get("pw", ""),
            email_verified="ok" in record,
            first_name=record.get("first"),
            last_name=record.get("last"),
            name=record.get("name"),
            picture=record.get("pic"),
            roles=tuple(record.get("roles", USER).split()),
            provider=record.get("via", "local"),
            active="off" not in record,
            created_at=_moment(record["at"]),
            updated_at=_moment(record.get("up", record["at"])),
            last_login_at=_moment(record["in"]) if "in" in record else None,
            new_email=record.get("new"),
            identities=tuple([Identity.read(name[3:], record[name]) for name in linked]),
            leaving_since=_moment(record["gone"].partition(" ")[0]) if "gone" in record else None,
            private="priv" in record,
        )

    def written(self) -> list[str]:
        """The fields and values of its record, in turn."""
        fields = {
            "email": self.email,
            "pw": self.password,
            "ok": "1" if self.email_verified else None,
            "first": self.first_name,
            "last": self.last_name,
            "name": self.name,
            "pic": self.picture,
            "roles": " ".join(self.roles) if self.roles != (USER,) else None,
            "via": self.provider if self.provider != "local" else None,
            "off": None if self.active else "1",
            "priv": "1" if self.private else None,
            "at": str(stamp(self.created_at)),
            **{"id:" + identity.provider: identity.written() for identity in self.identities},
        }
        return [part for name, value in fields.items() if value for part in (name, value)]

    @property
    def untold(self) -> bool:
        """Whether nobody may learn by its password that there is this account: it may be no more than a probe."""
        return self.private and not self.email_verified

    @property
    def leaving(self) -> bool:
        """Whether its deletion has begun."""
        return self.leaving_since is not None

    @property
    def is_admin(self) -> bool:
        """Whether they are an admin who can act."""
        return self.active and ADMIN in self.roles

    @property
    def display_name(self) -> str | None:
        """The name as given, else first and last name together."""
        return self.name or " ".join(filter(None, (self.first_name, self.last_name))) or None


@dataclass(frozen=True)
class Rights:
    """What an access token says of an account that may be used."""

    FIELDS: ClassVar = ("email", "roles", "off")  # of a record

    id: str
    email: str
    roles: tuple[str, ...]

    @classmethod
    def read(cls, user_id: str, reply: Sequence[str | None]) -> "Rights | None":
        """The rights that these fields say; `None` where there is no account, or it is disabled."""
        email, roles, off = reply
        if email is None or off is not None:
            return None
        return cls(user_id, email, tuple((roles or USER).split()))
