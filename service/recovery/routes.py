"""Recovery over HTTP. Tokens come by POST only, so that a mail scanner which opens links burns none."""

from aiohttp import web

from service.accounts.fields import Email, MailedToken, NewPassword, Password
from service.errors import EmailExists, InvalidCredentials, InvalidOneTimeToken, Overloaded
from service.http import answers, guard
from service.http.body import Body, read
from service.http.contract import Contract
from service.http.guard import client, principal
from service.http.throttle import charge, network, reauthenticating, unless_used_up
from service.limits.limiter import Charge
from service.parts import parts

routes = web.RouteTableDef()


class ForgottenPassword(Body):
    email: Email


class PasswordReset(Body):
    token: MailedToken
    new_password: NewPassword


class EmailVerification(Body):
    token: MailedToken


class EmailChange(Body):
    new_email: Email
    password: Password


@routes.post("/api/auth/password/forgot")
@guard.anyone
@unless_used_up("forgot")
@Contract(takes=ForgottenPassword, gives={202: None}, limits=("forgot",))
async def forgot(request: web.Request) -> web.Response:
    """Ask for a mail to set a new password; the answer is the same whether there is such an account or not."""
    sent = await read(request, ForgottenPassword)
    await charge(request, *_mailing(request, sent.email))
    await parts(request).recovery.forgot(sent.email, client(request))
    return answers.accepted()


@routes.post("/api/auth/password/reset")
@guard.anyone
@unless_used_up("verify-email")
@Contract(takes=PasswordReset, gives={204: None}, raises=(InvalidOneTimeToken, Overloaded), limits=("verify-email",))
async def reset(request: web.Request) -> web.Response:
    """Set a new password with the token of that mail; every session ends."""
    sent = await read(request, PasswordReset)
    await charge(request, Charge("verify-email", (network(request),)))
    await parts(request).recovery.reset(sent.token, sent.new_password, client(request))
    return answers.nothing()


@routes.post("/api/auth/email/resend")
@guard.user
@Contract(gives={202: None}, limits=("forgot",))
async def resend(request: web.Request) -> web.Response:
    """Ask for another mail to verify my email."""
    asking = principal(request)
    await charge(request, *_mailing(request, asking.email))
    await parts(request).recovery.ask_verification(asking.user_id)
    return answers.accepted()


@routes.post("/api/auth/email/verify")
@guard.anyone
@unless_used_up("verify-email")
@Contract(
    takes=EmailVerification, gives={204: None}, raises=(InvalidOneTimeToken, EmailExists), limits=("verify-email",)
)
async def verify(request: web.Request) -> web.Response:
    """Verify an email, or move to a new one, with the token of a mail."""
    sent = await read(request, EmailVerification)
    await charge(request, Charge("verify-email", (network(request),)))
    await parts(request).recovery.verify(sent.token, client(request))
    return answers.nothing()


@routes.post("/api/auth/email/change")
@guard.user
@Contract(
    takes=EmailChange,
    gives={202: None},
    raises=(InvalidCredentials, EmailExists, Overloaded),
    limits=("login", "login-account", "forgot"),
)
async def change_email(request: web.Request) -> web.Response:
    """Ask to move to another email; it changes when the new one is verified, and the old one is told."""
    asking, sent = principal(request), await read(request, EmailChange)
    await charge(request, *reauthenticating(request, asking.email), *_mailing(request, sent.new_email))
    await parts(request).recovery.ask_change(asking, sent.new_email, sent.password, client(request))
    return answers.accepted()


def _mailing(request: web.Request, email: str) -> tuple[Charge, Charge]:
    """What a call that makes us send a mail costs. How much is left for the address would tell who else has asked."""
    return Charge("forgot", (network(request),)), Charge("forgot", (email,), quiet=True)
