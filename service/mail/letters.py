"""Letters: the operator's templates under `config/mail/`, filled in.

Each letter is a pair of files, `<kind>.txt` and `<kind>.html`; the first line of the text is `Subject: ...`. What
stands as `$name` is filled in, in HTML escaped. Links lead to `FRONTEND_URL` and nowhere else; a `Host` header has
no say. Their token stands behind a `#`: browsers do not send that part, so it is in no server's log and in no
`Referer`. The page there posts it back, so that a mail scanner that merely opens links burns nothing.
"""

import html
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from enum import StrEnum
from pathlib import Path
from string import Template

from service.accounts.emails import deliverable
from service.settings import CONFIG, Settings, SettingsError

_PAGES = {"verify": "verify-email", "change": "verify-email", "reset": "reset-password"}  # below FRONTEND_URL
_NOBODY = "gatepost@localhost"


class Kind(StrEnum):
    """The letters there are, by the names of their templates."""

    VERIFY = "verify"
    RESET = "reset"
    CHANGE = "change"
    EMAIL_TAKEN = "email-taken"
    PASSWORD_CHANGED = "password-changed"  # noqa: S105
    CHANGE_ASKED = "change-asked"
    EMAIL_CHANGED = "email-changed"
    NEW_SIGN_IN = "new-sign-in"
    TOKEN_REUSED = "token-reused"  # noqa: S105


_FACTS = {
    Kind.VERIFY: {"link", "life"},
    Kind.RESET: {"link", "life"},
    Kind.CHANGE: {"link", "life"},
    Kind.EMAIL_TAKEN: set(),
    Kind.PASSWORD_CHANGED: {"when", "device", "ip"},
    Kind.CHANGE_ASKED: {"when", "device", "ip", "email"},
    Kind.EMAIL_CHANGED: {"when", "email"},
    Kind.NEW_SIGN_IN: {"when", "device", "ip"},
    Kind.TOKEN_REUSED: {"when", "device", "ip"},
}


@dataclass(frozen=True)
class Letter:
    """What to write to whom; a `token` becomes the link."""

    to: str
    kind: Kind
    facts: dict[str, str] = field(default_factory=dict)
    token: str | None = field(default=None, repr=False)


class Writer:
    """Writes letters from the templates; raises `SettingsError` for templates that cannot be used."""

    def __init__(self, settings: Settings, folder: Path = CONFIG / "mail") -> None:
        self._frontend = settings.frontend_url
        self._from = settings.mail_from or _NOBODY
        self._life = _in_words(settings.one_time_token_expiry.total_seconds())
        self._templates = {kind: (_load(folder, kind, "txt"), _load(folder, kind, "html")) for kind in Kind}

    @property
    def domain(self) -> str:
        """The domain of the sender."""
        return self._from.rpartition("@")[2].rstrip(">")

    def write(self, letter: Letter, message_id: str) -> EmailMessage:
        """The letter as a message; `EmailMessage` refuses line breaks in its headers."""
        facts = {**letter.facts, "frontend": self._frontend}
        if letter.token is not None:
            facts |= {"link": f"{self._frontend}/{_PAGES[letter.kind]}#token={letter.token}", "life": self._life}
        plain, rich = self._templates[letter.kind]
        subject, _, text = plain.substitute(facts).partition("\n")
        message = EmailMessage()
        message["Subject"] = subject.removeprefix("Subject:").strip()
        message["From"] = self._from
        message["To"] = deliverable(letter.to)
        message["Date"] = format_datetime(datetime.now(UTC))
        # The same at every try, so that a mailbox can drop one that arrived although we never heard so.
        message["Message-ID"] = f"<{message_id}@{self.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: holiday notices need not answer
        message.set_content(text.strip() + "\n")
        escaped = {name: html.escape(value) for name, value in facts.items()}
        message.add_alternative(rich.substitute(escaped), subtype="html")
        return message


def _load(folder: Path, kind: Kind, ending: str) -> Template:
    path = folder / f"{kind.value}.{ending}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path} cannot be used: {error!r}"]) from error
    template = Template(text)
    if not template.is_valid():
        raise SettingsError([f"{path} has a $ that begins no name; write $$ for a dollar."])
    if unknown := set(template.get_identifiers()) - _FACTS[kind] - {"frontend"}:
        known = ", ".join(sorted(_FACTS[kind] | {"frontend"}))
        raise SettingsError([f"{path} asks for ${', $'.join(sorted(unknown))}; there are only: {known}."])
    if ending == "txt" and not text.startswith("Subject:"):
        raise SettingsError([f"{path} must begin with a line such as: Subject: Verify your email"])
    return template


def _in_words(seconds: float) -> str:
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            count = int(seconds // length)
            return f"{count} {name}" + ("s" if count > 1 else "")
    return f"{int(seconds)} seconds"
