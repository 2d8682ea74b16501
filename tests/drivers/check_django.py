"""docs/connecting.md, Django."""

import os
import threading

import settings as documented
from django.conf import settings

from checks import BAD, PREPARED, ROWS, TOKENS, Shared, ok, same

# The documented settings, but for where the database is.
database = documented.DATABASES["default"]
database |= {"NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"]}
database["OPTIONS"] |= {"pool": {"min_size": 2, "max_size": 2}, "prepare_threshold": 0 if PREPARED else None}
settings.configure(
    DATABASES=documented.DATABASES, MIDDLEWARE=documented.MIDDLEWARE, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", USE_TZ=True, LOGGING_CONFIG=None
)

import django

django.setup()

from custody_backend.base import current_token
from django.db import DatabaseError, connection, connections, models, transaction
from django.http import JsonResponse
from django.test import Client
from django.urls import path


class Patient(models.Model):
    tenant_id = models.TextField(db_default=models.Func(function="custody.tenant"))
    id = models.IntegerField(primary_key=True)
    name = models.TextField(null=True)

    class Meta:
        managed = False
        app_label = "clinic"
        db_table = 'clinic"."patients'


def own():
    return [tuple(row) for row in Patient.objects.filter(id__lt=100).order_by("id").values_list("tenant_id", "id", "name")]


class Own(Exception):
    pass


def patients(request):
    if request.GET.get("raise"):
        Patient.objects.create(id=50, name="never")
        raise Own
    return JsonResponse({"patients": own(), "transaction": connection.in_atomic_block})


urlpatterns = [path("patients", patients)]


class acting:
    """Sets the token of this thread for a while."""

    def __init__(self, token):
        self.token = token

    def __enter__(self):
        self.before = current_token.set(self.token)

    def __exit__(self, *_):
        current_token.reset(self.before)


def fails(sqlstate, work):
    try:
        work()
    except DatabaseError as error:
        same(error.__cause__.sqlstate, sqlstate)
    else:
        raise AssertionError(f"{sqlstate} was to come")


def nothing_left():
    # Each connections.close_all() gives the connection back to the pool.
    for _ in range(3):
        same(own(), [])
        with transaction.atomic():
            same(own(), [])
        connections.close_all()


web = Client(raise_request_exception=False)
for name, token in TOKENS.items():
    for _ in range(3):
        answer = web.get("/patients", headers={"authorization": f"Bearer {token}"}).json()
        same(answer, {"patients": [list(row) for row in ROWS[name]], "transaction": True})
        same(web.get("/patients").json()["patients"], [])
ok("own rows only")
nothing_left()
ok("nothing after commit")
fails("UC001", lambda: Patient.objects.update(name="x"))
fails("UC001", lambda: Patient.objects.create(id=51, name="x"))
with acting(TOKENS["a"]):
    # In autocommit there is no transaction to have a context.
    same(own(), [])
    fails("UC001", lambda: Patient.objects.update(name="x"))
nothing_left()
ok("forgotten call")

same(web.get("/patients?raise=1", headers={"authorization": f"Bearer {TOKENS['a']}"}).status_code, 500)
nothing_left()
same(web.get("/patients", headers={"authorization": f"Bearer {TOKENS['a']}"}).json()["patients"], [list(row) for row in ROWS["a"]])
ok("nothing after rollback")

with acting(TOKENS["a"]):
    with transaction.atomic():
        Patient.objects.create(id=60, name="outer")
        try:
            with transaction.atomic():
                Patient.objects.create(id=61, name="inner")
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("SELECT 1 / 0")
        except DatabaseError:
            pass
        same([row[1] for row in own()], [1, 2, 60])
        patient = Patient.objects.get(id=60)
        same(patient.tenant_id, "a")
        patient.delete()
    # Again with the next transaction of the same thread and connection; and a hook that runs after one has no context.
    seen = []
    with transaction.atomic():
        same(own(), ROWS["a"])
        transaction.on_commit(lambda: seen.append(own()))
    same(seen, [[]])
    with transaction.atomic(durable=True):
        same(own(), ROWS["a"])
ok("savepoints")


def bad():
    with acting(BAD), transaction.atomic():
        raise AssertionError("a bad token was taken")


def other():
    with acting(TOKENS["a"]), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT custody.authenticate(%s)", [TOKENS["b"]])


fails("UC004", bad)
same(connection.in_atomic_block, False)
nothing_left()
same(connection.get_autocommit(), True)
fails("UC003", other)
nothing_left()
ok("errors")

shared, wrong = Shared(), []


def client(number):
    name = "ab"[number % 2]
    try:
        for i in range(15):
            with acting(TOKENS[name]), transaction.atomic(), connection.cursor() as cursor:
                Patient.objects.create(id=1000 + number * 100 + i, name=name)
                cursor.execute("SELECT pg_backend_pid()")
                shared.add(cursor.fetchone()[0], name)
                same(list(Patient.objects.filter(id__gte=1000).values_list("tenant_id", "name").distinct()), [(name, name)])
            connections.close_all()
    except BaseException as error:
        wrong.append(error)


threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if wrong:
    raise wrong[0]
shared.check()
for token in TOKENS.values():
    with acting(token), transaction.atomic():
        same(Patient.objects.filter(id__gte=1000).count(), 60)
        Patient.objects.filter(id__gte=1000).delete()
ok("threads")
connection.close_pool()
