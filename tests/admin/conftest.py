"""People for those who look after them."""

import pytest

from service.admin.administration import COMMAND_LINE
from tests.conftest import PASSWORD


@pytest.fixture
def joined(serving, browser, parts):
    """A browser whose owner has signed up, with these roles: `await joined("root@example.org", "admin")`."""

    async def join(email: str, *roles: str):
        its_own = await serving(at=browser)
        its_own.id = (await its_own.register(email)).json["user"]["id"]
        if roles:
            await parts.administration.change(COMMAND_LINE, its_own.id, roles=["user", *roles])
            assert (await its_own.login(email, PASSWORD)).status == 200
        return its_own

    return join
