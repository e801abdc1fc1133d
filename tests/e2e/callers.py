"""Who calls, for schemathesis, which loads this as its hooks: nobody, a person who signs in anew, or an API key."""

import os

import requests
import schemathesis

EMAIL, PASSWORD, API_KEY = (os.environ.get(name, "") for name in ("CALLER_EMAIL", "CALLER_PASSWORD", "CALLER_API_KEY"))

if EMAIL:

    @schemathesis.auth(refresh_interval=1)  # some calls end the caller's sessions
    class SignedIn:
        """A person with an access token that is at most a second old."""

        def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
            credentials = {"email": EMAIL, "password": PASSWORD}
            where = f"{os.environ['SERVICE_URL']}/api/auth/login"
            answer = requests.post(where, json=credentials, headers={"X-Auth-Mode": "token"}, timeout=10)
            return str(answer.json()["accessToken"])

        def set(self, case: schemathesis.Case, token: str, context: schemathesis.AuthContext) -> None:
            case.headers["Authorization"] = f"Bearer {token}"


if API_KEY:

    @schemathesis.auth()
    class Key:
        """An API key in its own header."""

        def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
            return API_KEY

        def set(self, case: schemathesis.Case, key: str, context: schemathesis.AuthContext) -> None:
            case.headers["X-API-Key"] = key
