"""What no line of the log may ever hold, whoever writes it and in whichever test: a secret, or an email in clear.

The whole suite logs through `Watch`: what services in the process of the tests say, and libraries with them. Secrets
are known in two ways: by their form (a token, a key, a hash), and because a `Browser` has sent or got them in this
test. The output of services in processes of their own is read after each test.
"""

import json
import logging
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import structlog
from structlog.typing import EventDict, WrappedLogger

SECRET_FIELDS = frozenset({
    "accessToken", "refreshToken", "csrfToken", "token", "apiKey", "password", "newPassword", "currentPassword",
    "access_token", "refresh_token", "id_token", "state", "client_secret", "code_verifier", "nonce",
})  # fmt: skip
_FORMS = {
    "a JWT": re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII),
    "a refresh token": re.compile(r"\brt_[A-Za-z0-9_-]{40,}", re.ASCII),
    "an API key": re.compile(r"\bak_[A-Za-z0-9_-]{30,}", re.ASCII),
    "a password's hash": re.compile(r"\$(argon2|2[aby]\$|pbkdf2|scrypt)", re.ASCII),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
}
_EMAIL = re.compile(r"[\w.+%-]*[\w*]@(?:[\w-]+\.)+[a-z]{2,}")
_MASKED = re.compile(r".?\*+@")
_EXAMPLE = """      -d '{"email": "grace@example.org","""  # of the welcome, which shows a developer a first call
_SHORTEST = 12  # characters of a secret that is looked for; "password" is one to a test, and a word in a sentence
_SECURITY_EVENT = re.compile(r"(sessions|accounts|apikeys|tokens|admin)\.\w+\.\w+")


class Watch:
    """Hears every line that is logged in this process, and holds those of one test against its secrets."""

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}  # what other processes log to, and how much of it was read
        self.begin()

    def begin(self) -> None:
        """Forget what other tests have said."""
        self.secrets: set[str] = set()
        self.lines: list[str] = []
        self.told: Counter[str] = Counter()  # security events of a request, with all that was told of them

    def follow(self, output: Path) -> None:
        """Read what a process of this test or of several writes there."""
        self._files.setdefault(output, 0)

    def hide(self, secrets: Iterable[object]) -> None:
        """Let none of these be told from now on."""
        self.secrets |= {str(secret) for secret in secrets if len(str(secret)) >= _SHORTEST}

    def hide_in(self, content: Any) -> None:
        """The same for what a JSON object, or one in it, has under the name of a secret."""
        if isinstance(content, Mapping):
            for name, value in content.items():
                if name in SECRET_FIELDS and isinstance(value, str):
                    self.hide([value])
                else:
                    self.hide_in(value)
        elif isinstance(content, list):
            for item in content:
                self.hide_in(item)

    def hide_of_url(self, url: str) -> None:
        """The same for the query and the fragment of an address."""
        parts = urlsplit(url)
        fields = dict(parse_qsl(parts.query) + parse_qsl(parts.fragment))
        self.hide_in(fields)
        self.hide([fields.get("code", "")])

    def hear(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """A processor of structlog, the first; what comes after it can only shorten."""
        told = {name: fact for name, fact in event.items() if name != "exc_info"}
        trace = event.get("exc_info")
        if isinstance(trace, BaseException):
            told["trace"] = "".join(traceback.format_exception(trace))
        elif trace:
            told["trace"] = traceback.format_exc()
        if told.get("event") != "mail.shown":  # a letter as a developer without a mail server reads it
            self.lines.append(json.dumps(told, default=str, ensure_ascii=False))
        if told.get("request_id") and _SECURITY_EVENT.fullmatch(str(told["event"])):
            self.told[json.dumps(told, default=str, sort_keys=True)] += 1
        return event

    def complaints(self) -> list[str]:
        """What should not have been said, with the line that says it."""
        everything = "\n".join(self.lines)
        found = {secret for secret in self.secrets if secret in everything}
        told = [f"a secret: {line}" for line in self.lines if any(secret in line for secret in found)]
        twice = [f"a security event, twice: {line}" for line, times in self.told.items() if times > 1]
        return [*told, *overheard(everything), *twice, *self._read()]

    def _read(self) -> list[str]:
        found = []
        for path, read in list(self._files.items()):
            try:
                with path.open("rb") as file:
                    file.seek(read)
                    said = file.read()
            except FileNotFoundError:
                del self._files[path]
                continue
            self._files[path] += len(said)
            found += overheard(said.decode("utf-8", "replace"))
        return found


class Handler(logging.Handler):
    """Lines of libraries, which the service would send the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        WATCH.hear(None, "", {"event": record.getMessage(), "exc_info": record.exc_info and record.exc_info[1]})


def overheard(text: str) -> list[str]:
    """What of a log is a secret by its form, or an email in clear."""
    found = []
    for line in text.split("\n"):
        if "mail.shown" in line or line.startswith(_EXAMPLE):
            continue
        found += [f"{what}: {line}" for what, form in _FORMS.items() if form.search(line)]
        found += [f"an email: {line}" for email in _EMAIL.findall(line) if not _MASKED.match(email)]
    return found


WATCH = Watch()


def listen() -> None:
    """Hear everything that is logged in this process from now on."""
    structlog.configure(processors=[WATCH.hear, *structlog.get_config()["processors"]])
    logging.getLogger().addHandler(Handler())
