"""What the programs here share. Each prints a line for everything that it saw to be so, and stops at the first thing that was not."""

import base64
import json
import os
import time

TOKENS = {"a": os.environ["TOKEN_A"], "b": os.environ["TOKEN_B"]}
BAD = os.environ["TOKEN_BAD"]
# Whether prepared statements reach the server connection that they were prepared on.
PREPARED = os.environ["PREPARED"] == "1"
DSN = "host={PGHOST} port={PGPORT} dbname={PGDATABASE} user={PGUSER}".format(**os.environ)
OWN = "SELECT tenant_id, id, name FROM clinic.patients WHERE id < 100 ORDER BY id"
ROWS = {"a": [("a", 1, "Ada"), ("a", 2, "Alan")], "b": [("b", 1, "Bo")]}


def until(token):
    """Seconds until a token expires."""
    claims = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"] - time.time()


def short():
    """The first of several tokens that is good for another second or two."""
    return next(token for token in os.environ["TOKENS_SHORT"].split() if until(token) > 1)


def ok(what):
    print("ok", what, flush=True)


def same(left, right):
    assert left == right, f"{left!r} is not {right!r}"


class Shared:
    """Which server connection served whom: one that served both tenants shows that it was reused."""

    def __init__(self):
        self.seen = {}

    def add(self, backend, tenant):
        self.seen.setdefault(backend, set()).add(tenant)

    def check(self):
        assert any(len(tenants) == 2 for tenants in self.seen.values()), f"no connection served both: {self.seen}"
