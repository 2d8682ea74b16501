"""docs/connecting.md, asyncpg."""

import asyncio
import os

import asyncpg
from tenant_asyncpg import tenant

from checks import BAD, OWN, PREPARED, ROWS, TOKENS, Shared, ok, same


async def fails(sqlstate, work):
    try:
        await work()
    except asyncpg.PostgresError as error:
        same(error.sqlstate, sqlstate)
    else:
        raise AssertionError(f"{sqlstate} was to come")


async def main():
    options = {} if PREPARED else {"statement_cache_size": 0}
    pool = await asyncpg.create_pool(
        host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]), user=os.environ["PGUSER"], database=os.environ["PGDATABASE"],
        min_size=2, max_size=2, **options
    )

    async def own(connection):
        return [tuple(row) for row in await connection.fetch(OWN)]

    async def nothing_left():
        for _ in range(3):
            async with pool.acquire() as connection:
                same(await own(connection), [])

    for name, token in TOKENS.items():
        async with tenant(pool, token) as connection:
            same(await own(connection), ROWS[name])
    ok("own rows only")
    await nothing_left()
    ok("nothing after commit")
    await fails("UC001", lambda: pool.execute("UPDATE clinic.patients SET name = 'x'"))
    ok("forgotten call")

    async def broken():
        async with tenant(pool, TOKENS["a"]) as connection:
            await connection.execute("INSERT INTO clinic.patients (id) VALUES (50)")
            await connection.execute("SELECT 1 / 0")

    await fails("22012", broken)
    await nothing_left()
    ok("nothing after rollback")

    async with tenant(pool, TOKENS["a"]) as connection:
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO clinic.patients (id) VALUES (61)")
                await connection.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError:
            pass
        same(await own(connection), ROWS["a"])
    ok("savepoints")

    async def bad():
        async with tenant(pool, BAD):
            raise AssertionError("a bad token was taken")

    await fails("UC004", bad)
    await nothing_left()
    ok("errors")
    shared = Shared()

    async def client(number):
        name = "ab"[number % 2]
        for i in range(20):
            async with tenant(pool, TOKENS[name]) as connection:
                shared.add(await connection.fetchval("SELECT pg_backend_pid()"), name)
                await connection.execute("INSERT INTO clinic.patients (id, name) VALUES ($1, $2)", 1000 + number * 100 + i, name)
                rows = await connection.fetch("SELECT DISTINCT tenant_id, name FROM clinic.patients WHERE id >= $1", 1000)
                same([tuple(row) for row in rows], [(name, name)])

    await asyncio.gather(*map(client, range(8)))
    shared.check()
    for token in TOKENS.values():
        async with tenant(pool, token) as connection:
            same(await connection.fetchval("SELECT count(*) FROM clinic.patients WHERE id >= 1000"), 80)
            await connection.execute("DELETE FROM clinic.patients WHERE id >= 1000")
    ok("tasks")
    await pool.close()


asyncio.run(main())
