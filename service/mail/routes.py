"""Mail over HTTP, in development only: the letters that would have been sent."""

import html

from aiohttp import web

from service.errors import NotFound
from service.http import guard
from service.http.contract import Contract, Raw
from service.http.response import HTML, Answer
from service.parts import parts

routes = web.RouteTableDef()


@routes.get("/dev/mail")
@guard.anyone
@Contract(gives={200: Raw(HTML)}, raises=(NotFound,), redis=False)
async def dev_mail(request: web.Request) -> web.Response:
    """In development without `SMTP_URL`: the letters of this instance, the latest first; from this machine only."""
    showing = parts(request).showing
    if showing is None or not guard.from_here(request):
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
    return Answer(page.encode(), content_type=HTML)


def _with_links(text: str, base: str) -> str:
    lines = []
    for line in text.splitlines():
        shown = html.escape(line)
        lines.append(f'<a href="{shown}">{shown}</a>' if line.startswith(base + "/") else shown)
    return "\n".join(lines)
