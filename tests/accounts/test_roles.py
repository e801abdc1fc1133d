"""The table of roles: its names go into tokens and headers."""

import pytest

from service.accounts.roles import Roles
from service.settings import SettingsError

TABLE = """
[user]
permissions = ["profile:read"]
[moderator]
permissions = []
[admin]
permissions = ["profile:read", "users:write"]
"""


def test_a_role_permits_what_the_table_says(tmp_path):
    (tmp_path / "roles.toml").write_text(TABLE)

    roles = Roles.load(tmp_path / "roles.toml")

    assert roles.permissions(["user", "admin", "gone"]) == ("profile:read", "users:write")


@pytest.mark.parametrize("name", ["guest,admin", "two words", "\u00e4dmin", "", "line\\nX-Auth-User: root", "a\\tb"])
def test_a_name_that_a_header_or_a_list_would_tear_apart_is_refused(tmp_path, name):
    """`X-Auth-Roles: guest,admin` says two roles to the application behind a proxy."""
    for table in (f'{TABLE}\n["{name}"]\npermissions = []\n', TABLE.replace("users:write", name)):
        (tmp_path / "roles.toml").write_text(table)

        with pytest.raises(SettingsError):
            Roles.load(tmp_path / "roles.toml")
