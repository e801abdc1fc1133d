"""The life of a session over HTTP: register, refresh, sign out."""

from tests.conftest import PASSWORD


async def test_a_person_registers_refreshes_and_signs_out(browser):
    registered = await browser.register()
    assert registered.status == 201
    assert (await browser("GET", "/api/auth/me")).json["user"]["email"] == "ada@example.org"

    refreshed = await browser("POST", "/api/auth/refresh")
    assert refreshed.status == 200
    assert "refreshToken" not in refreshed.json

    assert (await browser("POST", "/api/auth/logout")).status == 204
    assert (await browser("GET", "/api/auth/me")).code == "NO_TOKEN"
    gone = {"Authorization": f"Bearer {refreshed.json['accessToken']}"}
    assert (await browser("GET", "/api/auth/me", headers=gone)).code == "TOKEN_REVOKED"


async def test_a_wrong_password_is_refused(browser):
    await browser.register()

    assert (await browser.login(password=PASSWORD + "!")).code == "INVALID_CREDENTIALS"
