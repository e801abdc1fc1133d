"""The certified `oidc-provider` from npm, as a process of its own on loopback, and a person who uses its pages."""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp

from tests import npm

_HERE = Path(__file__).parent / "openid"
CLIENT_ID, CLIENT_SECRET = "gatepost", "a secret that the provider knows too: 5e1c"


class OpenIDProvider:
    """A running provider."""

    def __init__(self, callbacks: list[str], people: dict[str, dict[str, Any]]) -> None:
        self.issuer = self._control = ""
        self._process: subprocess.Popen[str] | None = None
        self._environment = {
            "PATH": os.environ["PATH"],
            "PEOPLE": json.dumps(people),
            "CLIENTS": json.dumps(
                [{"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "redirect_uris": callbacks}]
            ),
        }

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["node", "server.mjs"],
            cwd=_HERE,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline() or "{}")
        assert told, f"node ended with {self._process.wait(60)}; try it: (cd {_HERE} && node server.mjs)"
        self.issuer, self._control = told["issuer"], told["control"]

    def stop(self) -> None:
        """Its standard input ends, and so does it; the same happens should the tests be killed."""
        if self._process is not None:
            self._process.communicate(timeout=60)

    @property
    def settings(self) -> dict[str, str]:
        """What the operator writes to use it, under the name `example`."""
        return {
            "OIDC_EXAMPLE_ISSUER": self.issuer,
            "OIDC_EXAMPLE_CLIENT_ID": CLIENT_ID,
            "OIDC_EXAMPLE_CLIENT_SECRET": CLIENT_SECRET,
        }

    def rotate(self) -> None:
        """Sign with a new key, and forget the old one."""
        self._tell("/rotate")

    def calls(self, path: str) -> int:
        """How many requests a path has had."""
        return int(self._tell("/counts").get(path, 0))

    @property
    def called_by_us(self) -> int:
        return sum(map(self.calls, ("/token", "/jwks", "/me", "/.well-known/openid-configuration")))

    async def sign_in(self, auth_url: str, login: str, consent: bool = True) -> str:
        """Sign in and consent on the provider's own pages, and give the address that one is sent back to."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            address, form = auth_url, None
            for _ in range(12):
                method = "POST" if form else "GET"
                async with session.request(method, address, data=form, allow_redirects=False) as response:
                    page = await response.text()
                    form = None
                    if 300 <= response.status < 400:
                        address = str(response.url.join(aiohttp.client.URL(response.headers["Location"])))
                        if not address.startswith(self.issuer):
                            return address
                        continue
                    assert response.status == 200, page
                if 'name="prompt" value="login"' in page:
                    form = {"prompt": "login", "login": login, "password": "any"}
                elif consent:
                    form = {"prompt": "consent"}
                else:
                    address = _found(r'href="([^"]+/abort)"', page)
                    continue
                address = _found(r'<form[^>]* action="([^"]+)"', page)
        raise AssertionError("the provider sends us round in circles")

    def _tell(self, path: str) -> Any:
        with urllib.request.urlopen(self._control + path, timeout=10) as response:
            return json.load(response)


def install() -> None:
    """Install what `package-lock.json` says."""
    npm.install(_HERE)


def _found(pattern: str, page: str) -> str:
    found = re.search(pattern, page)
    assert found, page
    return found[1].replace("&amp;", "&")
