"""Mail over HTTP, in development only: the letters that would have been sent."""

import html

from aiohttp import web

from service.errors import NotFound
from service.http import guard
from service.http.contract import Contract, Raw
from service.http.response import HTML, Answer
from service.parts import parts

routes = web.RouteTableDef()

# It looks like `/docs`, whose style sheet it takes: of styles, pages may load what is here and nothing inline.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Mail - Gatepost</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/page.css">
<main>
<h1>Mail</h1>
<p>What would have been sent if <code>SMTP_URL</code> were set, the latest first.</p>
{letters}
</main>
</html>
"""


@routes.get("/dev/mail")
@guard.anyone
@Contract(gives={200: Raw(HTML)}, raises=(NotFound,), redis=False)
async def dev_mail(request: web.Request) -> web.Response:
    """In development without `SMTP_URL`: the letters of this instance, the latest first; from this machine only."""
    showing = parts(request).showing
    if showing is None or not guard.from_here(request):
        raise NotFound
    letters = "".join(
        f'<article class="panel"><h2>{html.escape(letter.subject)}</h2>'
        f'<p class="hint">To {html.escape(letter.to)}, {html.escape(letter.date)}</p>'
        f"<pre>{_with_links(letter.text, parts(request).settings.frontend_url)}</pre></article>"
        for letter in showing.letters
    )
    nothing = '<p class="panel">Nothing yet. Sign up, or ask for a new password, and load this page again.</p>'
    return Answer(_PAGE.format(letters=letters or nothing).encode(), content_type=HTML)


def _with_links(text: str, base: str) -> str:
    lines = []
    for line in text.splitlines():
        shown = html.escape(line)
        lines.append(f'<a href="{shown}">{shown}</a>' if line.startswith(base + "/") else shown)
    return "\n".join(lines)
