"""Mail over HTTP, in development only: the letters that would have been sent."""

import html
import ipaddress

from aiohttp import hdrs, web

from service.errors import NotFound
from service.http import guard
from service.parts import parts
from service.settings import LOOPBACK

routes = web.RouteTableDef()


@routes.get("/dev/mail")
@guard.anyone
async def dev_mail(request: web.Request) -> web.Response:
    """In development without `SMTP_URL`: the letters of this instance, the latest first; from this machine only."""
    showing = parts(request).showing
    if showing is None or not _from_here(request):
        raise NotFound
    letters = "".join(
        f"<article><h2>{html.escape(letter.subject)}</h2><p>To {html.escape(letter.to)}, {html.escape(letter.date)}</p>"
        f"<pre>{_with_links(letter.text, parts(request).settings.frontend_url)}</pre></article><hr>"
        for letter in showing.letters
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Mail</title><h1>Mail</h1>'
        f"<p>What would have been sent, the latest first.</p>{letters or '<p>Nothing yet.</p>'}</html>"
    )
    return web.Response(text=page, content_type="text/html")


def _from_here(request: web.Request) -> bool:
    """Whether this machine asks, under a name of its own: a page elsewhere could give its name our address."""
    try:
        peer = ipaddress.ip_address(request.remote or "")
    except ValueError:
        return False
    host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    named = host.strip("[]") in LOOPBACK
    return peer.is_loopback and named and hdrs.X_FORWARDED_FOR not in request.headers


def _with_links(text: str, base: str) -> str:
    lines = []
    for line in text.splitlines():
        shown = html.escape(line)
        lines.append(f'<a href="{shown}">{shown}</a>' if line.startswith(base + "/") else shown)
    return "\n".join(lines)
