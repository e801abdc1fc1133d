"""`/openapi.json`: everything here, as OpenAPI 3.1, made of the routes that serve and the models that check.

A route gives its path, method, guard and docstring, its `Contract` (`http/contract.py`) the rest. What follows from
these is worked out here and told nowhere else: which errors a guard, a body, a limit or Redis brings, and their
headers. The document is made when somebody first asks for it, and once; routes that are off are not in it.

    document.py    the whole
    operations.py  what is told of one route
    responses.py   what it may answer
    security.py    how its caller may prove who they are
    schemas.py     what bodies look like
    route.py       a route, and what it says of itself
"""

from service.http.openapi.document import document, written
from service.http.openapi.route import told

__all__ = ["document", "told", "written"]
