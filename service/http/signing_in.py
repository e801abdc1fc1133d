"""What signing in means for a browser: cookies or tokens, and the end of what was there before."""

from contextlib import suppress

from aiohttp import web

from service.errors import InvalidField, InvalidRefreshToken
from service.http import answers, browser
from service.http.guard import client
from service.mail.letters import Kind
from service.parts import parts
from service.sessions.families import EndReason
from service.sessions.signin import SignedIn

MODE = "X-Auth-Mode"


def wants_cookies(request: web.Request) -> bool:
    """Whether the client wants its tokens in cookies, which is the default, or in the body."""
    match request.headers.get(MODE, "cookie"):
        case "cookie":
            return True
        case "token":
            return False
    raise InvalidField(MODE, "must be cookie or token")


async def welcome(request: web.Request, signed: SignedIn, *, in_cookies: bool, status: int = 200) -> web.Response:
    """`SignedIn`, in cookies or in the body."""
    members = {"user": answers.user(signed.user, parts(request))}
    response = answers.with_tokens(request, signed, in_cookies=in_cookies, status=status, **members)
    if in_cookies:
        await _leave_the_past(request, signed)
    return response


async def arrive(request: web.Request, signed: SignedIn, response: web.Response) -> web.Response:
    """The same for a person on the way to a page: cookies, and nothing else."""
    answers.set_cookies(request, response, signed)
    await _leave_the_past(request, signed)
    return response


def goodbye(request: web.Request) -> web.Response:
    """204, which takes our cookies away where the browser has any."""
    its, response = parts(request), answers.nothing()
    if its.cookies.any(request):
        its.cookies.sign_out(response)
    return response


async def greet(request: web.Request, signed: SignedIn) -> None:
    """Remember where and with what the account was signed in to; its owner hears of what is new for it."""
    its, email, here = parts(request), signed.user.email, client(request)
    if signed.new_device:
        await its.notices.tell(Kind.NEW_SIGN_IN, here, signed.user.id, email)
    await its.places.remember(email, here, signed.seen)


async def _leave_the_past(request: web.Request, signed: SignedIn) -> None:
    """End the session whose cookies are being replaced, and the browser's session of before (ASVS 7.2.4)."""
    await _end_previous(request, signed)
    await browser.renew(request)


async def _end_previous(request: web.Request, signed: SignedIn) -> None:
    its = parts(request)
    for text in its.cookies.refresh_tokens(request):
        with suppress(InvalidRefreshToken):
            previous = its.refresh_tokens.read(text)
            if previous.session_id != signed.session_id:
                await its.signin.end(previous.user_id, previous.session_id, EndReason.SIGNED_IN_AGAIN, client(request))
