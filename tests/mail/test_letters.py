"""Letters: what is in them, and what cannot get into them."""

import shutil

import pytest

from service.mail.letters import _FACTS, Kind, Letter, Writer
from service.settings import CONFIG, SettingsError
from tests.conftest import settings_for

EVIL = '<script>alert(1)</script>" $link'


@pytest.fixture
def writer():
    return Writer(settings_for(FRONTEND_URL="https://app.example.org/base", MAIL_FROM="Example <no-reply@example.com>"))


@pytest.mark.parametrize("kind", Kind)
def test_every_letter_has_both_forms_and_escapes_what_it_is_given(writer, kind):
    facts = dict.fromkeys(_FACTS[kind] - {"link", "life"}, EVIL)
    letter = Letter("ada@example.org", kind, facts, token="ot_x" if "link" in _FACTS[kind] else None)

    message = writer.write(letter, "1-0")

    text, html = (message.get_body((form,)).get_content() for form in ("plain", "html"))
    assert message["Subject"]
    assert (message["To"], message["Message-ID"]) == ("ada@example.org", "<1-0@example.com>")
    assert "<script>" not in html
    assert ("#token=ot_x" in text) is ("#token=ot_x" in html) is (letter.token is not None)
    if facts:
        assert EVIL in " ".join(text.split())


def test_links_lead_below_the_frontend_with_the_token_where_no_server_sees_it(writer):
    text = writer.write(Letter("ada@example.org", Kind.RESET, token="ot_abc"), "1-0").get_body(("plain",)).get_content()

    assert "\nhttps://app.example.org/base/reset-password#token=ot_abc\n" in text


@pytest.mark.parametrize("to", ["ada@example.org\r\nBcc: all@example.org", "ada@example.org\nX: y"])
def test_no_line_break_gets_into_a_header(writer, to):
    with pytest.raises(ValueError):
        writer.write(Letter(to, Kind.EMAIL_TAKEN), "1-0")


def test_an_address_is_written_as_every_mail_server_understands_it(writer):
    assert writer.write(Letter("ada@bücher.example", Kind.EMAIL_TAKEN), "1-0")["To"] == "ada@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("reset.txt", "Subject: x\n$password", r"asks for \$password; there are only: frontend, life, link"),
        ("reset.txt", "no subject", "must begin with a line such as: Subject:"),
        ("reset.html", "costs $5", "write [$][$] for a dollar"),
        ("reset.html", None, r"reset\.html cannot be used"),
    ],
)
def test_a_template_that_cannot_be_used_stops_the_start_with_its_name(tmp_path, name, text, told):
    shutil.copytree(CONFIG / "mail", tmp_path / "mail")
    (tmp_path / "mail" / name).unlink()
    if text is not None:
        (tmp_path / "mail" / name).write_text(text)

    with pytest.raises(SettingsError, match=told):
        Writer(settings_for(), tmp_path / "mail")
