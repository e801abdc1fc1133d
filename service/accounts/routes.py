"""Accounts over HTTP: make one, look at it, change it."""

from aiohttp import web

from service.accounts.fields import Email, Name, NewPassword, Password, Picture
from service.accounts.user import User
from service.audit.events import Event
from service.errors import (
    EmailExists,
    Forbidden,
    InvalidCredentials,
    InvalidToken,
    NotFound,
    Overloaded,
    ReauthenticationRequired,
    RegistrationClosed,
)
from service.http import answers, guard, shapes
from service.http.body import Body, read, read_optional
from service.http.browser import with_browser_session
from service.http.contract import MODE, Contract
from service.http.guard import client, principal
from service.http.signing_in import goodbye, greet, wants_cookies, welcome
from service.http.throttle import charge, network, reauthenticating, unless_used_up
from service.limits.limiter import Charge
from service.mail.letters import Kind
from service.parts import parts

routes = web.RouteTableDef()

READ_USERS = "users:read"


class Registration(Body):
    email: Email
    password: NewPassword
    first_name: Name | None = None
    last_name: Name | None = None
    name: Name | None = None


class Profile(Body):
    """A field that is not there stays as it is; `null` empties it."""

    first_name: Name | None = None
    last_name: Name | None = None
    name: Name | None = None
    picture: Picture | None = None


class AccountDeletion(Body):
    """An account that has no password is deleted without one, soon after a sign-in."""

    password: Password | None = None


class PasswordChange(Body):
    current_password: Password
    new_password: NewPassword


@routes.post("/api/auth/register")
@guard.anyone
@unless_used_up("register")
@with_browser_session
@Contract(
    takes=Registration,
    gives={201: shapes.SignedIn, 202: None},
    parameters=(MODE,),
    raises=(EmailExists, RegistrationClosed, Overloaded),
    limits=("register", "forgot"),
    sets_cookies=(201,),
)
async def register(request: web.Request) -> web.Response:
    """Make an account and sign its owner in; where the email must be proved first, a mail is sent instead."""
    its, cookies = parts(request), wants_cookies(request)
    if its.settings.registration == "closed":
        raise RegistrationClosed
    wanted = await read(request, Registration)
    its.passwords.check(wanted.password, wanted.email, wanted.first_name, wanted.last_name, wanted.name)
    await charge(request, Charge("register", (network(request),)), _mailing(wanted.email))
    if its.settings.registration == "private":
        await its.recovery.register(client(request), **wanted.model_dump())
        return answers.accepted()
    if await its.users.find_by_email(wanted.email):
        raise EmailExists  # before the work of hashing; `register` decides
    user = await its.users.register(
        User(
            id="",
            email=wanted.email,
            password=await its.passwords.hash(wanted.password),
            first_name=wanted.first_name,
            last_name=wanted.last_name,
            name=wanted.name,
        )
    )
    await its.audit.record(Event.USER_REGISTERED, user_id=user.id, client=client(request))
    await its.notices.tell(Kind.VERIFY, client(request), user.id)
    if its.settings.require_verified_email:
        return answers.accepted()
    signed = await its.signin.begin(user, ("pwd",), client(request))
    await greet(request, signed)
    return await welcome(request, signed, in_cookies=cookies, status=201)


@routes.get("/api/auth/me")
@guard.person
@Contract(gives={200: shapes.Account})
async def me(request: web.Request) -> web.Response:
    """Who I am."""
    return _shown(request, guard.account(request))


@routes.delete("/api/auth/me")
@guard.user
@Contract(
    takes=AccountDeletion,
    may_be_empty=True,
    gives={204: None},
    raises=(InvalidCredentials, Forbidden, ReauthenticationRequired, NotFound, Overloaded),
    limits=("login", "login-account"),
    sets_cookies=(204,),
)
async def delete_me(request: web.Request) -> web.Response:
    """Delete my account: nothing is left of it but the audit trail."""
    its, asking = parts(request), principal(request)
    sent = await read_optional(request, AccountDeletion) or AccountDeletion()
    await charge(request, *reauthenticating(request, asking.email))
    await its.deletion.by_owner(asking, sent.password, client(request))
    return goodbye(request)


@routes.get("/api/users/profile")
@guard.person
@Contract(gives={200: shapes.Account})
async def profile(request: web.Request) -> web.Response:
    """My profile."""
    return _shown(request, guard.account(request))


@routes.patch("/api/users/profile")
@guard.user
@Contract(takes=Profile, gives={200: shapes.Account})
async def change_profile(request: web.Request) -> web.Response:
    """Change my names or my picture."""
    changes = (await read(request, Profile)).model_dump(exclude_unset=True)
    stored_as = {"first_name": "first", "last_name": "last", "name": "name", "picture": "pic"}
    if changes:
        await parts(request).users.change(
            principal(request).user_id, **{stored_as[name]: value for name, value in changes.items()}
        )
    if not (found := await parts(request).users.find(principal(request).user_id)):
        raise InvalidToken("The account is gone")
    return _shown(request, found)


@routes.get("/api/users/{id}")
@guard.caller
@Contract(gives={200: shapes.Account}, raises=(Forbidden, NotFound))
async def user(request: web.Request) -> web.Response:
    """A user: oneself, or with `users:read` anybody. An API key has no self."""
    wanted, asking = request.match_info["id"], principal(request)
    if (wanted != asking.user_id or asking.key_id) and READ_USERS not in asking.permissions:
        raise Forbidden(required=[READ_USERS])
    if not (found := await parts(request).users.find(wanted)):
        raise NotFound("There is no such user")
    return _shown(request, found)


@routes.post("/api/auth/password/change")
@guard.user
@Contract(
    takes=PasswordChange,
    gives={204: None},
    raises=(InvalidCredentials, Overloaded),
    limits=("login", "login-account"),
)
async def change_password(request: web.Request) -> web.Response:
    """Set a new password; every other session ends."""
    asking = principal(request)
    wanted = await read(request, PasswordChange)
    await charge(request, *reauthenticating(request, asking.email))
    await parts(request).signin.change_password(asking, wanted.current_password, wanted.new_password, client(request))
    return answers.nothing()


def _mailing(email: str) -> Charge:
    """What a registration costs the address that its mail goes to; apart from the mails that its owner asks for.

    Whoever has used those up for the owner must not keep them from registering.
    """
    return Charge("forgot", ("register", email), quiet=True)


def _shown(request: web.Request, user: User) -> web.Response:
    return answers.answer({"user": answers.user(user, parts(request))})
