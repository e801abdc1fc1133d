"""Email addresses: one spelling for each mailbox, and a form that a log may show.

Keeps nothing: a record has the canonical form, and `lookups.py` makes of it what leads there.
"""

import unicodedata
from functools import lru_cache

import email_validator

# The library refuses names reserved by RFC 6761. These two are in use on intranets and in staging.
for _reserved in {"local", "test"} & set(email_validator.SPECIAL_USE_DOMAIN_NAMES):
    email_validator.SPECIAL_USE_DOMAIN_NAMES.remove(_reserved)

LONGEST = 254  # bytes, RFC 5321, 4.5.3.1.3 and erratum 1690 of RFC 3696


class InvalidEmail(ValueError):
    """This is not an address that mail could be sent to."""

    def __init__(self) -> None:
        super().__init__("This is not a valid email address.")


@lru_cache(maxsize=1024)
def canonical(email: str) -> str:
    """Return the one spelling of this mailbox, or raise `InvalidEmail`.

    The part before the `@` becomes NFKC and lower case, the domain lower case and Unicode, whether it came
    as Punycode or with a dot at the end. Nothing else is mended: white space, quotes, control characters and
    address literals are refused. Dots and `+tags` stay, for they mean something at some providers.

    `lower()`, not `casefold()`: no mail server takes `ß` for `ss`, so folding would give one account to two
    mailboxes. Where two spellings do meet here, they must not differ in who reads the mail: send it to the
    canonical form, never to what was typed.

    The latest are remembered: a sign-in asks twice, and somebody who guesses passwords again and again.
    """
    if len(email) > LONGEST + len("."):  # before normalising, which is slow for a long run of accents
        raise InvalidEmail
    local_part, _, domain = email.rpartition("@")
    try:
        valid = email_validator.validate_email(
            f"{unicodedata.normalize('NFKC', local_part).lower()}@{domain.removesuffix('.')}",
            check_deliverability=False,
        )
    except email_validator.EmailNotValidError as error:
        raise InvalidEmail from error
    return valid.normalized


def deliverable(email: str) -> str:
    """The same with its domain in ASCII, as every mail server understands it."""
    return (
        f"{email.rpartition('@')[0]}@{email_validator.validate_email(email, check_deliverability=False).ascii_domain}"
    )


def masked(email: str) -> str:
    """Return `a***@example.org` for a log; of what is no address, nothing, as it may be a password."""
    try:
        local_part, _, domain = canonical(email).partition("@")
    except InvalidEmail:
        return "***"
    return f"{local_part[0]}***@{domain}"
