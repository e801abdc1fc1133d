"""Our answers, put together."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, overload

import orjson
from aiohttp import web

from service.accounts.user import User
from service.http import shapes
from service.http.response import Answer
from service.parts import Parts, parts
from service.sessions.signin import Tokens

JSON = "application/json"


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON."""
    return Answer(orjson.dumps(content), status, headers, JSON)


def nothing() -> web.Response:
    """204."""
    return Answer(status=204)


def accepted() -> web.Response:
    """202: a mail may be on its way."""
    return Answer(status=202)


@overload
def moment(time: datetime) -> str: ...
@overload
def moment(time: None) -> None: ...
@overload
def moment(time: datetime | None) -> str | None: ...
@lru_cache(maxsize=8192)
def moment(time: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC, to the millisecond."""
    if time is None:
        return None
    return (time if time.tzinfo is UTC else time.astimezone(UTC)).isoformat(timespec="milliseconds")[:-6] + "Z"


def user(person: User, its: Parts) -> shapes.User:
    """`User`, with the permissions that the roles give now."""
    return {
        "id": person.id,
        "email": person.email,
        "emailVerified": person.email_verified,
        "firstName": person.first_name,
        "lastName": person.last_name,
        "name": person.display_name,
        "picture": person.picture,
        "roles": person.roles,
        "permissions": its.roles.permissions(person.roles),
        "provider": person.provider,
        "identities": [
            {"provider": held.provider, "email": held.email, "linkedAt": moment(held.linked_at)}
            for held in person.identities
        ],
        "active": person.active,
        "createdAt": moment(person.created_at),
        "updatedAt": moment(person.updated_at),
        "lastLoginAt": moment(person.last_login_at),
    }


def with_tokens(
    request: web.Request, signed: Tokens, *, in_cookies: bool, status: int = 200, **members: Any
) -> web.Response:
    """A sign-in or a refresh. The refresh token is in the body only where it is not in a cookie."""
    fields = {
        **members,
        "accessToken": signed.access.text,
        "tokenType": "Bearer",
        "expiresIn": signed.access.expires_in,
        "csrfToken": parts(request).csrf.token(signed.session_id),
    }
    if in_cookies:
        return set_cookies(request, answer(fields, status), signed)
    fields["refreshToken"], fields["refreshExpiresIn"] = signed.refresh_token, signed.refresh_expires_in
    return answer(fields, status)


def set_cookies(request: web.Request, response: web.Response, signed: Tokens) -> web.Response:
    """Put a sign-in or a refresh into the cookies of an answer."""
    its = parts(request)
    its.cookies.sign_in(
        response,
        signed.access.text,
        signed.access.expires_in,
        signed.refresh_token,
        signed.refresh_expires_in,
        its.csrf.token(signed.session_id),
    )
    return response
