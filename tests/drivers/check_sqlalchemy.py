"""docs/connecting.md, SQLAlchemy 2."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import String, create_engine, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tenant_sqlalchemy import TenantSession
from tenant_sqlalchemy_async import tenant_sessions
from tenant_sqlalchemy_core import acts_for_current_token, current_token

from checks import BAD, OWN, PREPARED, ROWS, TOKENS, Shared, ok, same

URL = "postgresql+psycopg://{PGUSER}@/{PGDATABASE}?host={PGHOST}&port={PGPORT}".format(**os.environ)
ARGUMENTS = {"connect_args": {"prepare_threshold": 0 if PREPARED else None}, "pool_size": 2, "max_overflow": 0}
engine = create_engine(URL, **ARGUMENTS)


class Base(DeclarativeBase):
    pass


class Patient(Base):
    __tablename__ = "patients"
    __table_args__ = {"schema": "clinic"}
    tenant_id: Mapped[str] = mapped_column(String, primary_key=True, server_default=text("custody.tenant()"))
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    notes: Mapped[str | None]


def own(session):
    return [tuple(row) for row in session.execute(select(Patient.tenant_id, Patient.id, Patient.name).where(Patient.id < 100).order_by(Patient.id))]


def fails(sqlstate, work):
    try:
        work()
    except DBAPIError as error:
        same(error.orig.sqlstate, sqlstate)
    else:
        raise AssertionError(f"{sqlstate} was to come")


def nothing_left():
    for _ in range(3):
        with Session(engine) as session:
            same(own(session), [])


for name, token in TOKENS.items():
    with TenantSession(engine, info={"token": token}) as session:
        same(own(session), ROWS[name])
        # Each transaction of the session anew.
        session.commit()
        same(own(session), ROWS[name])
        session.rollback()
        same(own(session), ROWS[name])
ok("own rows only")
nothing_left()
ok("nothing after commit")


def forgotten():
    with Session(engine) as session:
        session.execute(update(Patient).values(name="x"))


def no_token():
    with TenantSession(engine) as session:
        own(session)


fails("UC001", forgotten)
try:
    no_token()
except KeyError:
    pass
else:
    raise AssertionError("a session without a token")
nothing_left()
ok("forgotten call")


class Own(Exception):
    pass


try:
    with TenantSession(engine, info={"token": TOKENS["a"]}) as session, session.begin():
        session.add(Patient(id=50, name="never"))
        session.flush()
        raise Own
except Own:
    pass
nothing_left()
ok("nothing after rollback")

with TenantSession(engine, info={"token": TOKENS["a"]}) as session, session.begin():
    session.add(Patient(id=60, name="outer"))
    session.flush()
    try:
        with session.begin_nested():
            session.add(Patient(id=61, name="inner"))
            session.flush()
            session.execute(text("SELECT 1 / 0"))
    except DBAPIError:
        pass
    same([row[1] for row in own(session)], [1, 2, 60])
    patient = session.scalars(select(Patient).where(Patient.id == 60)).one()
    same(patient.tenant_id, "a")
    session.delete(patient)
ok("savepoints")


def other():
    with TenantSession(engine, info={"token": TOKENS["a"]}) as session:
        session.execute(text("SELECT custody.authenticate(:token)"), {"token": TOKENS["b"]})


def bad():
    with TenantSession(engine, info={"token": BAD}) as session:
        own(session)


fails("UC003", other)
fails("UC004", bad)
nothing_left()
ok("errors")

shared = Shared()


def client(number):
    name = "ab"[number % 2]
    for i in range(15):
        with TenantSession(engine, info={"token": TOKENS[name]}) as session, session.begin():
            session.add(Patient(id=1000 + number * 100 + i, name=name))
            session.flush()
            shared.add(session.scalar(text("SELECT pg_backend_pid()")), name)
            same(session.execute(text("SELECT DISTINCT tenant_id, name FROM clinic.patients WHERE id >= 1000")).all(), [(name, name)])


with ThreadPoolExecutor(8) as threads:
    list(threads.map(client, range(8)))
shared.check()
for name, token in TOKENS.items():
    with TenantSession(engine, info={"token": token}) as session, session.begin():
        same(session.scalar(text("SELECT count(*) FROM clinic.patients WHERE id >= 1000")), 60)
        session.execute(text("DELETE FROM clinic.patients WHERE id >= 1000"))
ok("threads")

core = create_engine(URL, **ARGUMENTS)
acts_for_current_token(core)


def core_client(number):
    name = "ab"[number % 2]
    before = current_token.set(TOKENS[name])
    for _ in range(10):
        with core.connect() as connection:
            for _ in range(2):
                same([tuple(row) for row in connection.execute(text(OWN))], ROWS[name])
                connection.commit()
    current_token.reset(before)
    try:
        with core.connect() as connection:
            connection.execute(text(OWN))
    except LookupError:
        return
    raise AssertionError("a connection without a token")


with ThreadPoolExecutor(4) as threads:
    list(threads.map(core_client, range(8)))
ok("core")


async def tasks(url):
    engine = create_async_engine(url, **(ARGUMENTS if "psycopg" in url else {"connect_args": ASYNCPG, "pool_size": 2, "max_overflow": 0}))
    sessions = tenant_sessions(engine)

    async def client(number):
        name = "ab"[number % 2]
        for _ in range(10):
            async with sessions(info={"token": TOKENS[name]}) as session:
                rows = await session.execute(text(OWN))
                same([tuple(row) for row in rows], ROWS[name])
                await session.commit()
                same([tuple(row) for row in await session.execute(text(OWN))], ROWS[name])

    await asyncio.gather(*map(client, range(8)))
    await engine.dispose()


# As SQLAlchemy's page for asyncpg says for poolers: it names its statements, so that two clients must not choose one name.
ASYNCPG = {} if PREPARED else {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
asyncio.run(tasks(URL))
asyncio.run(tasks(URL.replace("+psycopg", "+asyncpg")))
ok("tasks")
engine.dispose()
core.dispose()
