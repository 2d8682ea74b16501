"""docs/connecting.md, psycopg 3."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tenant_psycopg import tenant, tenant_async, with_retries

from checks import BAD, DSN, OWN, PREPARED, ROWS, TOKENS, Shared, ok, same, short, until

# From the first execution on, where that can work at all.
OPTIONS = {"prepare_threshold": 0 if PREPARED else None}
pool = ConnectionPool(DSN, min_size=2, max_size=2, kwargs=OPTIONS, open=True)


def fails(sqlstate, work):
    try:
        work()
    except psycopg.Error as error:
        same(error.sqlstate, sqlstate)
    else:
        raise AssertionError(f"{sqlstate} was to come")


def nothing_left():
    for _ in range(4):
        with pool.connection() as connection:
            same(connection.execute(OWN).fetchall(), [])
            same(connection.execute("SELECT custody.tenant()").fetchone(), (None,))


for name, token in TOKENS.items():
    for _ in range(3):
        with tenant(pool, token) as connection:
            same(connection.execute(OWN).fetchall(), ROWS[name])
ok("own rows only")

nothing_left()
ok("nothing after commit")


def forgotten():
    with pool.connection() as connection:
        connection.execute("UPDATE clinic.patients SET name = 'x'")


fails("UC001", forgotten)
ok("forgotten call")


class Own(Exception):
    pass


try:
    with tenant(pool, TOKENS["a"]) as connection:
        connection.execute("INSERT INTO clinic.patients (id) VALUES (50)")
        raise Own
except Own:
    pass
nothing_left()
with tenant(pool, TOKENS["a"]) as connection:
    same(connection.execute(OWN).fetchall(), ROWS["a"])
ok("nothing after rollback")

with tenant(pool, TOKENS["a"]) as connection:
    connection.execute("INSERT INTO clinic.patients (id, name) VALUES (60, 'outer')")
    try:
        with connection.transaction():
            connection.execute("INSERT INTO clinic.patients (id) VALUES (61)")
            connection.execute("SELECT 1 / 0")
    except psycopg.errors.DivisionByZero:
        pass
    same(connection.execute("SELECT id FROM clinic.patients WHERE id >= 60 AND id < 100").fetchall(), [(60,)])
    connection.execute("DELETE FROM clinic.patients WHERE id = 60")
ok("savepoints")


def other():
    with tenant(pool, TOKENS["a"]) as connection:
        connection.execute("SELECT custody.authenticate(%s)", [TOKENS["b"]])


def bad():
    with tenant(pool, BAD):
        raise AssertionError("a bad token was taken")


fails("UC003", other)
fails("UC004", bad)
nothing_left()


def expires():
    token = short()
    with tenant(pool, token) as connection:
        same(connection.execute(OWN).fetchall(), ROWS["a"])
        time.sleep(until(token) + 0.1)
        connection.execute(OWN)


fails("UC005", expires)
nothing_left()
ok("errors")

with psycopg.connect(DSN, autocommit=True, **OPTIONS) as connection:
    notices = []
    connection.add_notice_handler(lambda n: notices.append(n.message_primary))
    connection.execute("SELECT custody.authenticate(%s)", [TOKENS["a"]])
    same(connection.execute(OWN).fetchall(), [])
    assert "ends with this statement" in notices[0], notices
ok("autocommit")

serializable = ConnectionPool(DSN, min_size=1, max_size=2, kwargs=OPTIONS, open=True, configure=lambda c: setattr(c, "isolation_level", psycopg.IsolationLevel.SERIALIZABLE))
attempts = []


def work(connection):
    attempts.append(1)
    same(connection.execute(OWN).fetchall(), ROWS["a"])
    if len(attempts) == 1:
        with tenant(pool, TOKENS["a"]) as second:
            second.execute("UPDATE clinic.patients SET notes = 'first' WHERE id = 1")
    connection.execute("UPDATE clinic.patients SET notes = 'second' WHERE id = 1")


with_retries(serializable, TOKENS["a"], work)
same(len(attempts), 2)
ok("retry")

shared = Shared()


def client(number):
    name = "ab"[number % 2]
    for i in range(25):
        with tenant(pool, TOKENS[name]) as connection:
            connection.execute("INSERT INTO clinic.patients (id, name) VALUES (%s, %s)", [1000 + number * 100 + i, name])
            shared.add(connection.execute("SELECT pg_backend_pid()").fetchone()[0], name)
            rows = connection.execute("SELECT DISTINCT tenant_id, name FROM clinic.patients WHERE id >= 1000").fetchall()
            same(rows, [(name, name)])


with ThreadPoolExecutor(8) as threads:
    list(threads.map(client, range(8)))
shared.check()
for name, token in TOKENS.items():
    with tenant(pool, token) as connection:
        same(connection.execute("SELECT count(*) FROM clinic.patients WHERE id >= 1000").fetchone(), (100,))
        connection.execute("DELETE FROM clinic.patients WHERE id >= 1000")
        # With a name of its own, or none: it was prepared if it could be.
        same(connection.execute("SELECT count(*) > 0 FROM pg_prepared_statements").fetchone(), (PREPARED,))
ok("threads")


async def tasks():
    async with AsyncConnectionPool(DSN, min_size=2, max_size=2, kwargs=OPTIONS, open=False) as pool:

        async def client(number):
            name = "ab"[number % 2]
            for _ in range(10):
                async with tenant_async(pool, TOKENS[name]) as connection:
                    same(await (await connection.execute(OWN)).fetchall(), ROWS[name])
                async with pool.connection() as connection:
                    same(await (await connection.execute(OWN)).fetchall(), [])

        await asyncio.gather(*map(client, range(8)))


asyncio.run(tasks())
ok("tasks")
pool.close()
serializable.close()
