#!/usr/bin/env python3
"""Make the test vectors of docs/format.md: run it again and the same bytes come out.

    make_vectors.py [DIRECTORY]        (by default the directory of this file)

It writes entries.json (known answers), whole.jsonl with whole.heads.json (a valid export), and tampered/ (one file per
attack, with what a verifier must find in tampered/expected.json). What is expected is written here by hand, case by case,
from the page; no verifier is asked. The encoding is written here a second time, sharing nothing with the checker.
"""

import copy
import hashlib
import json
import struct
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493

# ------------------------------------------------------------------------------------------------ the encoding, again


def enc(kind, value):
    """One field. Bytes and uuids are given in hex, as they stand in an export."""
    if value is None:
        return b"\0"
    if kind == "bytes":
        tag, body = 1, bytes.fromhex(value)
    elif kind == "text":
        tag, body = 2, value.encode()
    elif kind == "integer":
        tag, body = 3, struct.pack(">q", value)
    elif kind == "uuid":
        tag, body = 4, bytes.fromhex(value.replace("-", ""))
    elif kind == "boolean":
        tag, body = 5, struct.pack("?", value)
    return struct.pack(">BI", tag, len(body)) + body


def preimage(domain, *kinds_and_values):
    return b"pg_custody/" + domain.encode() + b"/v1\0" + b"".join(enc(k, v) for k, v in kinds_and_values)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def genesis_of(incarnation, tenant, lane):
    return sha(preimage("genesis", ("uuid", incarnation), ("text", tenant), ("integer", lane)))


def row_digest_of(e):
    texts = [("text", e[c]) for c in ("row_key", "old", "new")]
    return sha(preimage("row", ("bytes", e["row_salt"]), *texts))


def actor_digest_of(e):
    return sha(preimage("actor", ("bytes", e["actor_salt"]), ("text", e["actor"])))


HASHED = """
    bytes prev_hash, uuid incarnation, text tenant, integer lane, integer seq, integer lsn, integer ordinal, integer at,
    integer xid, text op, text schema_name, text table_name, text login_role, text acting_role, uuid move_id,
    integer actor_seq, boolean signs_run, text key_id, bytes actor_digest, bytes row_digest
"""
HASHED = [pair.split() for pair in HASHED.split(",")]

COLUMNS = """
    incarnation tenant lane seq format lsn ordinal at xid op schema_name table_name login_role acting_role move_id actor_seq
    signs_run key_id actor_salt actor row_salt row_key old new actor_digest row_digest prev_hash hash signature
""".split()


def hash_input_of(e):
    return preimage("entry", *((kind, e[column]) for kind, column in HASHED))


class Key:
    """A signing key from a seed of 32 bytes."""

    def __init__(self, name, first_byte):
        self.name = name
        self.seed = bytes(range(first_byte, first_byte + 32))
        self.private = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.fingerprint = sha(b"pg_custody/key/v1\0" + self.public)
        self.id = self.fingerprint[:16]

    def sign(self, hash_):
        return self.private.sign(b"pg_custody/run/v1\0" + bytes.fromhex(hash_)).hex()

    def endorsement_message(self, incarnation, from_lsn=None):
        fields = ("uuid", incarnation), ("bytes", self.public.hex())
        if from_lsn is None:
            return preimage("endorse", *fields)
        return preimage("endorse", *fields, ("integer", from_lsn)).replace(b"/v1\0", b"/v2\0", 1)

    def living(self, incarnation, predecessor=None, from_lsn=None, recovers=None, **more):
        """The key's record with its life, as exports since 0.2.0 have it."""
        life = {"from_lsn": from_lsn, "recovers": recovers and recovers.id, "ended": None, "until_lsn": None,
                "ended_by": None, "end_signature": None}
        return {**self.record(incarnation, predecessor, from_lsn=from_lsn, **more), **life}

    def end(self, incarnation, ended, until_lsn, by, signer=None):
        """The members that say where the key ends; `signer` signs, if it is not the key named."""
        message = preimage(ended, ("uuid", incarnation), ("bytes", self.public.hex()), ("integer", until_lsn))
        return {"ended": ended, "until_lsn": until_lsn, "ended_by": by.id, "end_signature": (signer or by).private.sign(message).hex()}

    def record(self, incarnation, predecessor=None, endorser=None, from_lsn=None):
        """The key's record; `endorser` signs, if it is not the predecessor."""
        message = self.endorsement_message(incarnation, from_lsn)
        return {
            "record": "key", "key_id": self.id, "incarnation": incarnation, "public_key": self.public.hex(),
            "fingerprint": self.fingerprint, "predecessor": predecessor and predecessor.id,
            "endorsement": predecessor and (endorser or predecessor).private.sign(message).hex(),
        }


K1, K2, K3 = Key("K1", 0x00), Key("K2", 0x20), Key("K3", 0x40)
A = "0192a3b4-c5d6-7e8f-9a0b-1c2d3e4f5061"
B = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
MOVE = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
I64_MIN, I64_MAX = -(2**63), 2**63 - 1


def compact(value):
    return json.dumps(value, ensure_ascii=False)


def salt(*what):
    return hashlib.sha256(repr(what).encode()).hexdigest()[:32]


def seal(e, key=None, digests=False):
    """Compute the hash of an entry from its columns, and its signature by `key`; with `digests`, those too."""
    if digests:
        e["row_digest"] = row_digest_of(e)
        e["actor_digest"] = actor_digest_of(e) if e["actor_seq"] == e["seq"] else None
    e["hash"] = sha(hash_input_of(e))
    e["signature"] = key.sign(e["hash"]) if key else None
    return e


# ------------------------------------------------------------------------------------------------------- entries.json


def known_answers():
    fields = [
        ("bytes", None), ("bytes", ""), ("bytes", "00ff"), ("text", None), ("text", ""), ("text", "a"),
        ("text", "Zoë 😀 e\u0301"), ("integer", 0), ("integer", 1), ("integer", -1), ("integer", I64_MAX),
        ("integer", I64_MIN), ("uuid", None), ("uuid", A), ("boolean", False), ("boolean", True),
    ]
    genesis = [(A, "", 0), (A, "", 1), (A, "acme", 0), (B, "acme", 7), (B, "Größe-租户-😀", 1023), (A, "x", I64_MIN), (A, "x", I64_MAX)]
    rows = [
        ("everything there", '{"id": 1}', '{"name": "old"}', '{"id": 1, "name": "new"}'),
        ("an INSERT: no old", '{"id": 1}', None, '{"id": 1, "name": "x"}'),
        ("a DELETE: no new", '{"id": 1}', '{"id": 1}', None),
        ("all three absent", None, None, None),
        ("all three empty, which is not absent", "", "", ""),
        ("the same bytes split otherwise, 1", "ab", "c", None),
        ("the same bytes split otherwise, 2", "a", "bc", None),
        ("not normalised: combining accent, escapes, blanks", '{"n":"e\u0301"}', '{ "n" : "\\u00e9" }', '{"n":"é","😀":"租户"}\n'),
        ("longer than 65535 bytes", '{"id": 2}', None, '{"text": "' + "ä" * 33000 + '"}'),
    ]
    actors = [
        ("an object", '{"user": "zoë", "ip": "::1"}'), ("an empty object", "{}"), ("empty text", ""), ("absent", None),
        ("unicode", '{"user": "租户 😀"}'), ("longer than 255 bytes", '{"user": "' + "u" * 300 + '"}'),
    ]

    def digest(label, members, function, name):
        return {"description": label, **members, name: function(members)}

    return {
        "description": (
            "Known answers for docs/format.md, version 1, made by make_vectors.py. Bytes are lower-case hex, absent values "
            "are null, integers are exact up to 64 bits (read them as such, not as doubles). fields: section 1. keys: "
            "section 5, each from its 32-byte Ed25519 seed; endorsement_message is what the predecessor signs. ends: what "
            "ended_by signs, and its signature. genesis, "
            "row_digests, actor_digests, entries: sections 3 and 4. Each entry has every column of section 2 as an export "
            "gives it; row_digest, actor_digest, hash and signature are to be recomputed from the others. hash_input is "
            "all that hash is the SHA-256 of. signed_by names the key, and run_message is what it signs. prev_hash is "
            "given: the entries stand alone and form no chain."
        ),
        "fields": [{"type": kind, "value": value, "encoded": enc(kind, value).hex()} for kind, value in fields],
        "keys": [key_answer(K1, A), key_answer(K2, B, K1), key_answer(K3, A, K2), key_answer(K3, B, K2, 2**40 + 7)],
        "ends": [end_answer("retire", K1, A, 4711, K3), end_answer("revoke", K2, B, I64_MAX, K3)],
        "genesis": [dict(incarnation=i, tenant=t, lane=n, hash=genesis_of(i, t, n)) for i, t, n in genesis],
        "row_digests": [
            digest(label, dict(row_salt=salt("row", label), row_key=k, old=o, new=n), row_digest_of, "row_digest")
            for label, k, o, n in rows
        ],
        "actor_digests": [
            digest(label, dict(actor_salt=salt("actor", label), actor=a), actor_digest_of, "actor_digest") for label, a in actors
        ],
        "entries": [entry_answer(*spec) for spec in entry_specs()],
    }


def end_answer(ended, key, incarnation, until_lsn, by):
    message = preimage(ended, ("uuid", incarnation), ("bytes", key.public.hex()), ("integer", until_lsn))
    return {"public_key": key.public.hex(), "incarnation": incarnation, **key.end(incarnation, ended, until_lsn, by), "end_message": message.hex()}


def key_answer(key, incarnation, predecessor=None, from_lsn=None):
    record = key.living(incarnation, predecessor, from_lsn) if from_lsn is not None else key.record(incarnation, predecessor)
    del record["record"]
    message = key.endorsement_message(incarnation, from_lsn).hex() if predecessor else None
    return {"name": key.name, "seed": key.seed.hex(), **record, "endorsement_message": message}


def entry_specs():
    """(description, signing key or None, the columns that differ from those in entry_answer)"""
    long_name = "n" * 300
    return [
        ("first of a chain, signed, all by itself", K1, {}),
        ("within a run: not signed, actor part at an earlier entry", None,
         dict(seq=2, ordinal=2, actor_seq=1, actor_salt=None, actor=None, op="UPDATE", old='{"name": "x"}', prev_hash=sha(b"1"))),
        ("system chain (empty tenant); no table, no row key, no old", K1,
         dict(tenant="", lane=0, op="AUDIT", schema_name=None, table_name=None, row_key=None, new='{"rows": 3}')),
        ("every optional column absent: actor at an earlier entry, not signed, no table, no move, an empty row part", None,
         dict(seq=9, actor_seq=3, actor_salt=None, actor=None, schema_name=None, table_name=None, row_key=None, new=None,
              prev_hash=sha(b"2"))),
        ("texts empty rather than absent", K2,
         dict(incarnation=B, tenant="", op="", schema_name="", table_name="", login_role="", acting_role="", row_key="",
              old="", new="", actor="")),
        ("every integer at the upper limit; seq and actor_seq too", K1,
         dict(lane=I64_MAX, seq=I64_MAX, lsn=I64_MAX, ordinal=I64_MAX, at=I64_MAX, xid=I64_MAX, actor_seq=I64_MAX, prev_hash="ff" * 32)),
        ("integers at the lower limit (the encoding takes them, though no log has them)", K1,
         dict(lane=I64_MIN, lsn=I64_MIN, ordinal=I64_MIN, at=I64_MIN, xid=I64_MIN, prev_hash="00" * 32)),
        ("captured before 1970; integers beyond 2^53", K1, dict(at=-1, lsn=2**53 + 1, xid=2**62 + 1, seq=2**53 + 1, actor_seq=2**53 + 1)),
        ("unicode everywhere, composed and not; names longer than 255 bytes", K3,
         dict(tenant="Größe-租户-😀", schema_name="e\u0301", table_name=long_name, login_role="é", acting_role="роль",
              actor='{"user": "Zoë"}', row_key='{"名": "値"}', old='{"q": "\\"\\\\"}', new='{"t": "a\tb\u2028c"}')),
        ("a row that left its tenant", None,
         dict(seq=4, op="MOVE_OUT", move_id=MOVE, old='{"id": 7, "tenant": "acme"}', new=None, prev_hash=sha(b"3"))),
        ("a row that came to its tenant, signed with a key that was endorsed", K2,
         dict(incarnation=B, tenant="globex", op="MOVE_IN", move_id=MOVE, new='{"id": 7, "tenant": "globex"}')),
    ]


def entry_answer(description, key, changes):
    e = dict.fromkeys(COLUMNS)
    e.update(
        incarnation=A, tenant="acme", lane=3, seq=1, format=1, lsn=23456789, ordinal=1, at=1767225600123456, xid=4711,
        op="INSERT", schema_name="public", table_name="account", login_role="app", acting_role="app_writer", actor_seq=1,
        signs_run=key is not None, key_id=key and key.id, actor_salt=salt("a", description), actor='{"user": "zoe"}',
        row_salt=salt("r", description), row_key='{"id": 7}', new='{"id": 7, "name": "x"}',
    )
    e.update(changes)
    if "seq" in changes and "actor_seq" not in changes:
        e["actor_seq"] = e["seq"]
    e["prev_hash"] = changes.get("prev_hash") or genesis_of(e["incarnation"], e["tenant"], e["lane"])
    seal(e, key, digests=True)
    return {
        "description": description, "entry": e, "hash_input": hash_input_of(e).hex(), "signed_by": key and key.name,
        "run_message": (b"pg_custody/run/v1\0" + bytes.fromhex(e["hash"])).hex() if key else None,
    }


# -------------------------------------------------------------------------------------------------------- whole.jsonl

C = (A, "acme", 1)  # the chain that is tampered with


class Log:
    """An export being made: `keys`, and `entries` by no order until it is written."""

    def __init__(self):
        self.keys, self.entries, self.lsn = [], [], 1000

    def at(self, seq, chain=C):
        return next(e for e in self.entries if chain_of(e) == chain and e["seq"] == seq)

    def chain(self, chain=C):
        return sorted((e for e in self.entries if chain_of(e) == chain), key=lambda e: e["seq"])

    def append(self, chain, xid, ordinal=1, key=None, actor_seq=None, **columns):
        """Append an entry, signed by `key` if there is one, carrying the actor part unless `actor_seq` says where it is."""
        before = self.chain(chain)
        seq = len(before) + 1
        own = actor_seq is None
        self.lsn += 56
        e = dict.fromkeys(COLUMNS)
        e.update(
            incarnation=chain[0], tenant=chain[1], lane=chain[2], seq=seq, format=1, lsn=self.lsn, ordinal=ordinal,
            at=1767225600000000 + self.lsn * 1000, xid=xid, op="INSERT", schema_name="public", table_name="account",
            login_role="app", acting_role="app_writer", actor_seq=seq if own else actor_seq, signs_run=key is not None,
            key_id=key and key.id, actor_salt=salt("actor", chain, seq) if own else None,
            actor=compact({"user": "zoë", "request": f"r-{xid}"}) if own else None, row_salt=salt("row", chain, seq),
            prev_hash=before[-1]["hash"] if before else genesis_of(*chain),
        )
        e.update(columns)
        self.entries.append(seal(e, key, digests=True))
        return e

    def remove(self, *seqs, chain=C):
        self.entries = [e for e in self.entries if not (chain_of(e) == chain and e["seq"] in seqs)]

    def text(self):
        order = lambda e: (e["tenant"].encode(), e["incarnation"], e["lane"], e["seq"])  # noqa: E731
        records = self.keys + [{"record": "entry", **e} for e in sorted(self.entries, key=order)]
        return "".join(compact(record) + "\n" for record in records)

    def heads(self):
        last = {chain_of(e): e for e in sorted(self.entries, key=lambda e: (e["tenant"], e["incarnation"], e["lane"], e["seq"]))}
        return [{name: e[name] for name in ("incarnation", "tenant", "lane", "seq", "hash")} for e in last.values()]


def chain_of(e):
    return e["incarnation"], e["tenant"], e["lane"]


def account(number, balance, **more):
    return compact({"id": number, "balance": balance, **more})


def whole_log():
    """Two incarnations with a key each, two tenants and the system chain, several lanes."""
    log = Log()
    log.keys = [K1.record(A), K2.record(B, K1)]
    system = dict(login_role="postgres", acting_role="postgres")

    def born(incarnation, xid, key, parent):
        state = dict(incarnation=incarnation, parent=parent, reason="init" if parent is None else "restore",
                     key_id=key.id, public_key=key.public.hex())
        log.append((incarnation, "", 0), xid, key=key, op="INCARNATION", schema_name=None, table_name=None, new=compact(state), **system)

    def row(chain, xid, ordinal, op, number, old=None, new=None, **more):
        log.append(chain, xid, ordinal, op=op, row_key=compact({"id": number}), old=old, new=new, **more)

    born(A, 90, K1, None)
    log.append((A, "", 0), 91, key=K1, op="AUDIT", new='{"captures": ["insert", "update", "delete"]}', **system)
    log.append((A, "", 0), 92, 1, op="DDL", new='{"command": "ALTER TABLE", "object": "public.account"}', **system)
    log.append((A, "", 0), 92, 2, key=K1, actor_seq=3, op="CAPTURE_ON", new='{"enabled": true}', **system)

    row(C, 100, 1, "INSERT", 1, new=account(1, 10))  # 1 to 3: one run
    row(C, 100, 2, "INSERT", 2, new=account(2, 20.50, note="Größe"), actor_seq=1)
    row(C, 100, 3, "UPDATE", 1, account(1, 10), account(1, 11), actor_seq=1, key=K1)
    row(C, 101, 1, "UPDATE", 2, '{"balance": 20.5}', account(2, 30), key=K1)  # 4: a run of one
    row(C, 102, 1, "INSERT", 3, new=account(3, 1))  # 5 to 8: a run with a signature in its midst
    row(C, 102, 2, "INSERT", 4, new=account(4, 2), actor_seq=5, key=K1)
    row(C, 102, 3, "INSERT", 5, new=account(5, 3), actor_seq=5)
    row(C, 102, 4, "DELETE", 5, old=account(5, 3), actor_seq=5, key=K1)
    row(C, 103, 1, "MOVE_OUT", 4, old=account(4, 2), move_id=MOVE, key=K1)  # 9
    row(C, 104, 1, "INSERT", 6, new=account(6, 4))  # 10 and 11
    row(C, 104, 2, "UPDATE", 6, '{"balance": 4}', account(6, 5, note="租户 😀"), actor_seq=10, key=K1)

    row((A, "acme", 2), 105, 1, "INSERT", 7, new=account(7, -3))
    row((A, "acme", 2), 105, 2, "TRUNCATE", 7, old=account(7, -3), actor_seq=1, key=K1)
    row((A, "Ünternehmen", 1), 103, 2, "MOVE_IN", 4, new=account(4, 2), move_id=MOVE, key=K1)
    row((A, "Ünternehmen", 1), 106, 1, "INSERT", 8, new=account(8, 0))
    row((A, "Ünternehmen", 1), 106, 2, "INSERT", 9, new=account(9, 0), actor_seq=2)
    row((A, "Ünternehmen", 1), 106, 3, "INSERT", 10, new=account(10, 0), actor_seq=2, key=K1)

    born(B, 2000, K2, A)
    row((B, "acme", 1), 2001, 1, "INSERT", 11, new=account(11, 7))
    row((B, "acme", 1), 2001, 2, "DELETE", 11, old=account(11, 7), actor_seq=1, key=K2)
    row((B, "acme", 1), 2002, 1, "INSERT", 12, new=account(12, 8), key=K2)
    return log


# ----------------------------------------------------------------------------------------------------------- tampered


def f(verdict, *seqs, chain=C):
    """The findings of one verdict at these places."""
    incarnation, tenant, lane = chain
    return [dict(verdict=verdict, incarnation=incarnation, tenant=tenant, lane=lane, seq=seq) for seq in seqs]


def check(*findings, pin=None, heads=False, notices=()):
    """What one way to verify a file must find."""
    return {
        "pin": pin and pin.fingerprint, "heads": "../whole.heads.json" if heads else None,
        "notices": list(notices), "findings": sorted(sum(findings, []), key=lambda x: (x["tenant"] or "", x["incarnation"] or "", x["lane"] or 0, x["seq"] or 0, x["verdict"])),
    }


def signed_places(log, incarnation):
    """key_not_valid wherever a signature of an incarnation stands."""
    signed = [e for e in log.entries if e["incarnation"] == incarnation and e["signs_run"]]
    return sum((f("key_not_valid", e["seq"], chain=chain_of(e)) for e in signed), [])


ATTACKS = {}


def attack(function):
    """Register a function that tampers with a copy of the whole log and returns the checks. Its docstring describes it."""
    ATTACKS[function.__name__] = function
    return function


# Content and header.


@attack
def edited_image(log):
    """The image of entry 6 is changed; nothing else."""
    log.at(6)["new"] = account(4, 2000000)
    return [check(f("edited", 6)), check(f("edited", 6), pin=K1, heads=True)]


@attack
def edited_actor(log):
    """The actor part of entry 5 names another user."""
    log.at(5)["actor"] = '{"user": "mallory"}'
    return [check(f("edited", 5))]


@attack
def edited_header(log):
    """The login_role of entry 6 is changed; nothing else."""
    log.at(6)["login_role"] = "mallory"
    return [check(f("edited", 6))]


@attack
def edited_rehashed_unsigned(log):
    """The image of entry 5, which has no signature, is changed, and its digest and hash are computed anew."""
    e = log.at(5)
    e["new"] = account(3, 1000000)
    seal(e, digests=True)
    return [check(f("edited", 5))]


@attack
def edited_rehashed_signed(log):
    """The image of entry 6, which is signed, is changed, its digest and hash computed anew; the signature is the old one."""
    e = log.at(6)
    signature = e["signature"]
    e["new"] = account(4, 2000000)
    seal(e, digests=True)["signature"] = signature
    return [check(f("edited", 6), f("bad_signature", 6)), check(f("edited", 6), f("bad_signature", 6), pin=K1)]


@attack
def edited_rehashed_to_the_end(log):
    """The image of entry 5 is changed and the whole chain after it is hashed anew, without the signing key."""
    log.at(5)["new"] = account(3, 1000000)
    prev = log.at(4)["hash"]
    for e in log.chain()[4:]:
        signature, e["prev_hash"] = e["signature"], prev
        seal(e, digests=True)["signature"] = signature
        prev = e["hash"]
    bad = f("bad_signature", 6, 8, 9, 11)
    return [check(bad), check(bad, f("rewritten", 11), heads=True)]


@attack
def edited_hash(log):
    """The hash of entry 6 is changed; nothing else."""
    log.at(6)["hash"] = "ab" * 32
    return [check(f("edited", 6), f("bad_signature", 6))]


@attack
def edited_prev_hash(log):
    """The prev_hash of entry 7 is changed; nothing else."""
    log.at(7)["prev_hash"] = "ab" * 32
    return [check(f("edited", 7))]


@attack
def xid_changed(log):
    """Entry 7, in the midst of a run, gets the xid of another transaction."""
    log.at(7)["xid"] = 777
    return [check(f("edited", 7), f("unsigned", 7))]


@attack
def format_changed(log):
    """Entry 7 claims another version of the format."""
    log.at(7)["format"] = 2
    return [check(f("edited", 7))]


@attack
def actor_seq_changed(log):
    """Entry 7 points to an actor part that comes after it."""
    log.at(7)["actor_seq"] = 9
    return [check(f("edited", 7))]


@attack
def actor_seq_forward_signed(log):
    """The holder of the signing key appends an entry that points to an actor part after it."""
    log.append(C, 999, key=K1, actor_seq=13, new=account(66, 6))
    return [check(f("edited", 12))]


@attack
def actor_part_added(log):
    """Entry 7 gets an actor part, though entry 5 carries it."""
    log.at(7).update(actor_salt="00" * 16, actor='{"user": "mallory"}')
    return [check(f("edited", 7))]


# Entries missing, moved, added.


@attack
def deleted_middle(log):
    """Entry 7 is gone."""
    log.remove(7)
    return [check(f("deleted", 7)), check(f("deleted", 7), heads=True)]


@attack
def deleted_several(log):
    """Entries 5 to 7, and 10, are gone: two gaps."""
    log.remove(5, 6, 7, 10)
    return [check(f("deleted", 5, 10))]


@attack
def deleted_run_end(log):
    """Entries 6 to 8 are gone, with both signatures of their run: entry 9 says nothing about 5 then."""
    log.remove(6, 7, 8)
    return [check(f("deleted", 6))]


@attack
def deleted_first(log):
    """Entry 1 is gone, and the actor part with it."""
    log.remove(1)
    return [check(f("deleted", 1))]


@attack
def swapped_within_run(log):
    """Entries 6 and 7, neither with an actor part of its own, have swapped their seq."""
    a, b = log.at(6), log.at(7)
    a["seq"], b["seq"] = 7, 6
    return [check(f("reordered", 6, 7))]


@attack
def swapped_runs(log):
    """Entries 4 and 9, each a run of one with its own actor part, have swapped their seq (but not actor_seq)."""
    a, b = log.at(4), log.at(9)
    a["seq"], b["seq"] = 9, 4
    return [check(f("reordered", 4, 9), f("edited", 4, 9))]


@attack
def inserted_renumbered(log):
    """An unsigned entry is put in after 4, and all that followed is numbered one higher; nothing is hashed anew."""
    for e in log.chain()[4:]:
        e["seq"] += 1
    rest = log.chain()[4:]
    log.entries = [e for e in log.entries if e not in rest]
    log.append(C, 999, new=account(66, 6))
    log.entries += rest
    return [check(f("unsigned", 5), f("reordered", 6, 7, 8, 9, 10, 11, 12), f("edited", 6, 10, 11))]


@attack
def inserted_foreign_link(log):
    """Entries 10 and 11 are replaced by a signed run that does not continue 9. It takes the signing key."""
    log.remove(10, 11)
    log.append(C, 999, key=K1, new=account(66, 6), prev_hash="cd" * 32)
    return [check(f("inserted", 10)), check(f("inserted", 10), f("truncated", 11), heads=True)]


@attack
def inserted_first(log):
    """A chain that does not begin at its genesis hash."""
    log.append((A, "acme", 9), 999, key=K1, new=account(66, 6), prev_hash="cd" * 32)
    return [check(f("inserted", 1, chain=(A, "acme", 9)))]


@attack
def inserted_twice(log):
    """The line of entry 9 stands there twice."""
    log.entries.insert(log.entries.index(log.at(9)), copy.deepcopy(log.at(9)))
    return [check(f("inserted", 9))]


@attack
def signed_replacement(log):
    """Entry 4 is replaced by another, signed with the right key; entry 5 still continues the old one."""
    e = log.at(4)
    e["new"] = account(2, 99)
    seal(e, K1, digests=True)
    return [check(f("inserted", 5))]


@attack
def moved_to_another_tenant(log):
    """Entry 2 of the lane (acme, 2) is appended to another tenant's chain."""
    e = log.at(2, (A, "acme", 2))
    e["tenant"], e["lane"], e["seq"] = "Ünternehmen", 1, 5
    findings = f("edited", 5, chain=(A, "Ünternehmen", 1)) + f("unsigned", 1, chain=(A, "acme", 2))
    return [check(findings), check(findings, f("truncated", 2, chain=(A, "acme", 2)), heads=True)]


@attack
def truncated_runs(log):
    """The last run is gone: only a head kept shows it."""
    log.remove(10, 11)
    return [check(), check(f("truncated", 10), heads=True)]


@attack
def truncated_within_run(log):
    """The last entry is gone, and with it the signature of its run."""
    log.remove(11)
    return [check(f("unsigned", 10)), check(f("unsigned", 10), f("truncated", 11), heads=True)]


@attack
def truncated_chain(log):
    """A whole chain is gone: only a head kept shows it."""
    chain = (A, "acme", 2)
    log.remove(1, 2, chain=chain)
    return [check(), check(f("truncated", 1, chain=chain), heads=True)]


@attack
def truncated_all(log):
    """No entry is left."""
    heads = log.heads()
    log.entries = []
    empty = [dict(verdict="empty", incarnation=None, tenant=None, lane=None, seq=None)]
    gone = [f("truncated", 1, chain=chain_of(head)) for head in heads]
    return [check(empty), check(empty, *gone, heads=True)]


@attack
def rewritten_from_head(log):
    """The holder of the signing key writes the chain anew from 10 on: only a head kept shows it."""
    log.remove(10, 11)
    log.append(C, 104, 1, new=account(6, 4))
    log.append(C, 104, 2, key=K1, actor_seq=10, new=account(6, 5000000))
    log.append(C, 107, 1, key=K1, new=account(7, 1))
    return [check(pin=K1), check(f("rewritten", 11), heads=True)]


# Signatures and keys.


@attack
def forged_unsigned(log):
    """An entry without a signature is appended."""
    log.append(C, 999, new=account(66, 6))
    return [check(f("unsigned", 12)), check(f("unsigned", 12), pin=K1, heads=True)]


@attack
def forged_claims_signature(log):
    """An entry is appended that says it is signed, with neither key_id nor signature."""
    log.append(C, 999, new=account(66, 6), signs_run=True)
    return [check(f("unsigned", 12))]


@attack
def forged_unregistered_key(log):
    """An entry is appended, signed with a key that is in no key record."""
    log.append(C, 999, key=K3, new=account(66, 6))
    return [check(f("key_not_valid", 12)), check(f("key_not_valid", 12), pin=K1)]


@attack
def forged_key_of_other_incarnation(log):
    """An entry is appended, signed with the key of the other incarnation."""
    log.append(C, 999, key=K2, new=account(66, 6))
    return [check(f("key_not_valid", 12)), check(f("key_not_valid", 12), pin=K1)]


@attack
def forged_added_key(log):
    """The forger's key is added to the key records, endorsed by no one: only a pin shows it."""
    log.keys.append(K3.record(A))
    log.append(C, 999, key=K3, new=account(66, 6))
    return [check(), check(f("key_not_valid", 12), pin=K1)]


@attack
def forged_endorsement(log):
    """As before, but the record names K1 as predecessor, with an endorsement that the forger has signed."""
    log.keys.append(K3.record(A, K1, endorser=K3))
    log.append(C, 999, key=K3, new=account(66, 6))
    return [check(), check(f("key_not_valid", 12), pin=K1)]


@attack
def endorsement_for_other_incarnation(log):
    """K2, endorsed for incarnation B, is registered for A with that same endorsement."""
    log.keys.append({**K2.record(B, K1), "incarnation": A})
    log.append(C, 999, key=K2, new=account(66, 6))
    return [check(), check(f("key_not_valid", 12), pin=K1)]


@attack
def endorsed_through_another(log):
    """No attack: K3 is endorsed by K2, which is endorsed by K1. The records stand in the reverse order."""
    log.keys = [K3.record(A, K2), K2.record(B, K1), K1.record(A)]
    log.append(C, 999, key=K3, new=account(66, 6))
    return [check(), check(pin=K1), check(signed_places_by(log, K1), pin=K2)]


# What follows is of keys' lives: K1 signs for A, then K3; entries 12 to 15 of the chain are appended.


def rotated(log, recovers=None):
    """K3 takes over from K1; 12 was in flight and is signed by K1, 13 by K3. Gives the lsns: of 12, of 13."""
    from_lsn = log.lsn + 10
    in_flight = log.append(C, 200, key=K1, new=account(20, 1))["lsn"]
    after = log.append(C, 201, key=K3, new=account(21, 1))["lsn"]
    log.keys = [K1.living(A), K2.living(B, K1),
                K3.living(A, None if recovers else K1, from_lsn, recovers)]
    return in_flight, after


@attack
def key_rotated(log):
    """No attack: K3 takes over from K1, which signs one more entry that was in flight, and is retired at that one's very lsn."""
    in_flight, _ = rotated(log)
    log.keys[0].update(K1.end(A, "retire", in_flight, K3))
    return [check(), check(pin=K1), check(signed_places_by(log, K1), signed_places_by(log, K2), pin=K3)]


@attack
def key_from_its_very_lsn(log):
    """No attack: K3 is valid from the lsn of the first entry that it signs."""
    _, after = rotated(log)
    log.keys[2] = K3.living(A, K1, after)
    return [check(), check(pin=K1)]


@attack
def old_entry_resealed(log):
    """Entry 4 is signed anew with K3, which came later, and so are all after it: the journald defect."""
    rotated(log)
    log.at(4)["key_id"] = K3.id
    seal(log.at(4), K3)
    rechain(log, 5)
    return [check(f("key_not_valid", 4)), check(f("key_not_valid", 4), pin=K1)]


def rechain(log, first):
    for e in [e for e in log.chain() if e["seq"] >= first]:
        e["prev_hash"] = log.at(e["seq"] - 1)["hash"]
        seal(e, {K1.id: K1, K3.id: K3}.get(e["key_id"]))


@attack
def old_entry_resealed_and_key_backdated(log):
    """As before, and the record of K3 says that it was valid then: K1 never signed that."""
    rotated(log)
    log.at(4)["key_id"] = K3.id
    seal(log.at(4), K3)
    rechain(log, 5)
    log.keys[2]["from_lsn"] = 0
    return [check(), check(signed_places_by(log, K3), pin=K1)]


@attack
def endorsement_without_its_lsn(log):
    """K3 has a from_lsn, and an endorsement of the first kind, that does not cover it."""
    rotated(log)
    log.keys[2]["endorsement"] = K3.record(A, K1)["endorsement"]
    return [check(), check(f("key_not_valid", 13), pin=K1)]


@attack
def retired_key_signs_on(log):
    """K1 is retired, and signs entry 14."""
    in_flight, _ = rotated(log)
    log.keys[0].update(K1.end(A, "retire", in_flight, K3))
    log.append(C, 202, key=K1, new=account(22, 1))
    return [check(f("key_not_valid", 14)), check(f("key_not_valid", 14), pin=K1)]


@attack
def retired_key_listed_twice(log):
    """As before, with a second record of K1 that has no end."""
    in_flight, _ = rotated(log)
    log.append(C, 202, key=K1, new=account(22, 1))
    log.keys.append({**log.keys[0], **K1.end(A, "retire", in_flight, K3)})
    return [check(f("key_not_valid", 14)), check(f("key_not_valid", 14), pin=K1)]


@attack
def end_by_the_key_itself(log):
    """Ends that do not count: K1 ends itself; K3 is ended by K1, which came before it."""
    rotated(log)
    log.keys[0].update(K1.end(A, "retire", 0, K1))
    log.keys[2].update(K3.end(A, "revoke", 0, K1))
    return [check(), check(pin=K1)]


@attack
def end_forged(log):
    """Ends that do not count: signed by another key than is named; and of another incarnation's key."""
    rotated(log)
    log.keys[0].update(K1.end(A, "revoke", 0, K3, signer=K2))
    log.keys[1].update(K2.end(B, "retire", 0, K3))
    return [check(), check(pin=K1)]


@attack
def end_of_an_unknown_kind(log):
    """Ends that do not count: no known word; the word exchanged; the lsn exchanged; a member absent."""
    in_flight, _ = rotated(log)
    good = K1.end(A, "retire", in_flight, K3)
    base = log.keys[0]
    log.append(C, 202, key=K1, new=account(22, 1))
    log.keys[0] = {**base, **good, "ended": "retired"}
    log.keys += [{**base, **good, "ended": "revoke"}, {**base, **good, "until_lsn": 0}, {**base, **good, "ended_by": None}]
    return [check(), check(pin=K1)]


@attack
def end_by_an_untrusted_key(log):
    """A forger lists K3, which nobody endorses, and has it revoke K1: only who pins nothing believes it."""
    rotated(log)
    log.keys[2].update(predecessor=None, endorsement=None)
    log.keys[0].update(K1.end(A, "revoke", 0, K3))
    return [check(signed_places_by(log, K1)), check(f("key_not_valid", 13), pin=K1)]


@attack
def key_revoked(log):
    """K3 revokes K1 as of entry 11: what it signed later is in doubt, and it vouches for nobody."""
    rotated(log)
    log.keys[0].update(K1.end(A, "revoke", log.at(11)["lsn"], K3))
    later = [e for e in log.entries if e["key_id"] == K1.id and e["lsn"] > log.at(11)["lsn"]]
    late = sum((f("key_not_valid", e["seq"], chain=chain_of(e)) for e in later), [])
    return [check(late), check(late, signed_places_by(log, K2), signed_places_by(log, K3), pin=K1)]


@attack
def key_recovered(log):
    """No attack: K1 was lost, and K3 took over; nobody vouches for it. That is a notice, not a finding."""
    rotated(log, recovers=K1)
    return [check(notices=["key_recovered"]), check(f("key_not_valid", 13), pin=K1, notices=["key_recovered"])]


def signed_places_by(log, key):
    signed = [e for e in log.entries if e["key_id"] == key.id]
    return sum((f("key_not_valid", e["seq"], chain=chain_of(e)) for e in signed), [])


@attack
def key_record_misnamed(log):
    """The record of K1 has the public key of K3, with the key_id of K1: it registers neither."""
    log.keys[0]["public_key"] = K3.public.hex()
    return [check(signed_places(log, A)), check(signed_places(log, A), signed_places(log, B), pin=K1)]


@attack
def forged_key_record_misnamed(log):
    """The forger's key is added to the key records under another key_id: it is registered by neither."""
    log.keys.append({**K3.record(A), "key_id": "0123456789abcdef"})
    log.append(C, 999, key=K3, new=account(66, 6))
    return [check(f("key_not_valid", 12))]


@attack
def resigned_key_id_kept(log):
    """The signature of entry 11 is replaced by one by another key; key_id stays."""
    log.at(11)["signature"] = K3.sign(log.at(11)["hash"])
    return [check(f("bad_signature", 11))]


@attack
def resigned_key_id_changed(log):
    """The signature of entry 4 is replaced by one by another key, and key_id names that; the hash stays."""
    e = log.at(4)
    e.update(key_id=K3.id, signature=K3.sign(e["hash"]))
    return [check(f("edited", 4), f("key_not_valid", 4))]


@attack
def resigned_key_id_changed_rehashed(log):
    """As before, with the hash computed anew: entry 5 no longer continues it."""
    e = log.at(4)
    e["key_id"] = K3.id
    seal(e, K3)
    return [check(f("edited", 4), f("key_not_valid", 4))]


@attack
def signature_removed(log):
    """The signature of entry 6 is gone; key_id and signs_run stay."""
    log.at(6)["signature"] = None
    return [check(f("unsigned", 6))]


@attack
def signature_and_key_id_removed(log):
    """The signature and the key_id of entry 6 are gone; signs_run stays."""
    log.at(6).update(signature=None, key_id=None)
    return [check(f("unsigned", 6), f("edited", 6))]


@attack
def signature_cleared_in_run(log):
    """Entry 6, in the midst of a run, has its signature, key_id and signs_run cleared; the hash stays."""
    log.at(6).update(signature=None, key_id=None, signs_run=False)
    return [check(f("edited", 6))]


@attack
def signature_cleared_at_run_end(log):
    """Entry 4, the end of a run, has its signature, key_id and signs_run cleared; the hash stays."""
    log.at(4).update(signature=None, key_id=None, signs_run=False)
    return [check(f("edited", 4), f("unsigned", 4))]


@attack
def signature_cleared_at_run_end_rehashed(log):
    """As before, with the hash computed anew."""
    e = log.at(4)
    e.update(key_id=None, signs_run=False)
    seal(e)
    return [check(f("edited", 4), f("unsigned", 4))]


@attack
def signature_cleared_at_chain_end_rehashed(log):
    """The last entry has its signature, key_id and signs_run cleared, and its hash computed anew."""
    e = log.at(11)
    e.update(key_id=None, signs_run=False)
    seal(e)
    return [check(f("unsigned", 11)), check(f("unsigned", 11), f("rewritten", 11), heads=True)]


@attack
def signature_without_signs_run(log):
    """Entry 7 gets the signature of the right key, though signs_run is false."""
    log.at(7)["signature"] = K1.sign(log.at(7)["hash"])
    return [check(f("edited", 7))]


@attack
def signature_s_not_canonical(log):
    """The signature's s is replaced by s + L, which a lax verifier takes."""
    e = log.at(11)
    signature = bytes.fromhex(e["signature"])
    s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    e["signature"] = (signature[:32] + s.to_bytes(32, "little")).hex()
    return [check(f("bad_signature", 11))]


@attack
def signature_small_order_key(log):
    """The neutral point is registered as a public key. Under it s·B = R holds for any message, with any s that one likes."""
    neutral = copy.copy(K3)
    neutral.public = (1).to_bytes(32, "little")
    neutral.fingerprint = sha(b"pg_custody/key/v1\0" + neutral.public)
    neutral.id = neutral.fingerprint[:16]
    log.keys.append(neutral.record(A))
    e = log.append(C, 999, key=neutral, new=account(66, 6))
    e["signature"] = (K3.public + secret_scalar(K3).to_bytes(32, "little")).hex()
    return [check(f("bad_signature", 12))]


@attack
def signature_small_order_r(log):
    """The holder of the key signs with the neutral point as R, s = h·a: the equation holds, and strictness refuses it."""
    e = log.at(11)
    r = (1).to_bytes(32, "little")
    message = b"pg_custody/run/v1\0" + bytes.fromhex(e["hash"])
    h = int.from_bytes(hashlib.sha512(r + K1.public + message).digest(), "little")
    e["signature"] = (r + (h * secret_scalar(K1) % ED25519_ORDER).to_bytes(32, "little")).hex()
    return [check(f("bad_signature", 11))]


def secret_scalar(key):
    """The scalar a of a key, A = a·B (RFC 8032, 5.1.5), reduced."""
    a = int.from_bytes(hashlib.sha512(key.seed).digest()[:32], "little")
    return ((a & ((1 << 254) - 8)) | (1 << 254)) % ED25519_ORDER


# Parts dropped.


@attack
def row_part_dropped(log):
    """The row part of entry 6 is erased."""
    log.at(6).update(row_salt=None, row_key=None, old=None, new=None)
    return [check(f("payload_missing", 6))]


@attack
def row_salt_dropped(log):
    """Of the row part of entry 6 only the salt is gone."""
    log.at(6)["row_salt"] = None
    return [check(f("edited", 6))]


@attack
def row_texts_dropped(log):
    """Of the row part of entry 6 all but the salt is gone."""
    log.at(6).update(row_key=None, old=None, new=None)
    return [check(f("edited", 6))]


@attack
def actor_part_dropped(log):
    """The actor part of entry 5 is erased."""
    log.at(5).update(actor_salt=None, actor=None)
    return [check(f("payload_missing", 5))]


@attack
def actor_salt_dropped(log):
    """Of the actor part of entry 5 only the salt is gone."""
    log.at(5)["actor_salt"] = None
    return [check(f("edited", 5))]


@attack
def actor_digest_dropped(log):
    """The actor part of entry 5 is gone with its digest."""
    log.at(5).update(actor_salt=None, actor=None, actor_digest=None)
    return [check(f("edited", 5))]


# Erasure.

C2, CB = (A, "acme", 2), (B, "acme", 1)  # other chains of the same tenant
OTHER = (A, "Ünternehmen", 1)


def drop(log, *seqs, part="row", chain=C):
    """Erase a part of these entries."""
    columns = ("row_salt", "row_key", "old", "new") if part == "row" else ("actor_salt", "actor")
    for seq in seqs:
        log.at(seq, chain).update(dict.fromkeys(columns))


def erase(log, *stretches, where=C, key=K1, part="row", new=None, **more):
    """Append the ERASE that says so: by default in the chain that is tampered with, naming entries of it."""
    entries = [[*chain[::2], first, last] for chain, first, last in stretches]
    state = {"reason": "asked for", "part": part, "entries": entries}
    return log.append(where, 3000, key=key, op="ERASE", new=compact(state) if new is None else new, **more)


@attack
def erased(log):
    """No attack: the row parts of 1, 3, 4 and of the first entry of another lane are erased, and an ERASE says so."""
    drop(log, 1, 3, 4)
    drop(log, 1, chain=C2)
    erase(log, (C, 1, 1), (C, 3, 4), (C2, 1, 1))
    return [check(), check(heads=True), check(pin=K1, heads=True)]


@attack
def erased_before_it_stands(log):
    """No attack: the ERASE stands in a chain that comes before the one it names."""
    drop(log, 1, 2, chain=C2)
    erase(log, (C2, 1, 2))
    return [check(pin=K1)]


@attack
def erased_from_another_life(log):
    """No attack: the ERASE stands in a later incarnation; and the actor part of 5 is erased by one in another lane."""
    drop(log, 6, 7)
    drop(log, 5, part="actor")
    erase(log, (C, 6, 7), where=CB, key=K2)
    erase(log, (C, 5, 5), where=C2, part="actor")
    return [check(pin=K1)]


@attack
def erased_in_a_run(log):
    """No attack: two ERASEs within a run, whose last entry carries the signature."""
    drop(log, 1, 6)
    erase(log, (C, 1, 1), key=None)
    erase(log, (C, 6, 6), key=None, actor_seq=12, ordinal=2)
    log.append(C, 3000, 3, key=K1, actor_seq=12, new=account(66, 6))
    return [check(pin=K1)]


@attack
def erased_in_overlapping_stretches(log):
    """No attack: the stretches of two ERASEs overlap, and reach beyond the end of a chain."""
    drop(log, 1, 2, 3, 4, 5)
    drop(log, 2, chain=C2)
    erase(log, (C, 1, 3), (C2, 2, 2), (C2, 4, I64_MAX))
    erase(log, (C, 2, 5), (C, 1, 1), (C, 13, 13))
    return [check(f("erasure_incomplete", 13))]


@attack
def erased_more_than_named(log):
    """2 and 7 are missing too, of which the ERASE does not speak; nor does it of the actor part of 1."""
    drop(log, 1, 2, 3, 7)
    drop(log, 1, part="actor")
    erase(log, (C, 1, 1), (C, 3, 6))
    return [check(f("payload_missing", 1, 2, 7), f("erasure_incomplete", 4, 5, 6))]


@attack
def erased_and_back(log):
    """An ERASE names 3 and the actor part of 4; the row part of 3 is there again, and so is the actor part of 4."""
    erase(log, (C, 3, 3))
    erase(log, (C, 4, 4), part="actor")
    return [check(f("erasure_incomplete", 3, 4)), check(f("erasure_incomplete", 3, 4), pin=K1, heads=True)]


@attack
def erased_actor_that_was_not_there(log):
    """An ERASE names the actor part of 2, which has none of its own, and of 20, where there is no entry."""
    erase(log, (C, 2, 2), (C, 20, 20), part="actor")
    return [check(f("erasure_incomplete", 2))]


@attack
def erased_the_other_part(log):
    """An ERASE names the actor part of 6; it is the row part that is missing."""
    drop(log, 6)
    erase(log, (C, 6, 6), part="actor")
    return [check(f("payload_missing", 6), f("erasure_incomplete", 6))]


@attack
def erased_by_another_tenant(log):
    """The ERASE that names 6 stands in another tenant's chain."""
    drop(log, 6)
    erase(log, (C, 6, 6), where=OTHER)
    # There, it names what is number 6 of its own tenant's chain: there is none.
    return [check(f("payload_missing", 6))]


@attack
def erased_elsewhere(log):
    """The ERASE names the same number of another lane, and of another incarnation."""
    drop(log, 6)
    erase(log, ((A, "acme", 3), 6, 6), (CB, 6, 6))
    return [check(f("payload_missing", 6))]


@attack
def erased_without_signature(log):
    """An ERASE is appended without a signature."""
    drop(log, 6)
    erase(log, (C, 6, 6), key=None)
    return [check(f("payload_missing", 6), f("unsigned", 12))]


@attack
def erased_without_signature_before_a_run(log):
    """After the unsigned ERASE comes a run that is signed: that is not the signature of its own."""
    drop(log, 6)
    erase(log, (C, 6, 6), key=None)
    log.append(C, 3001, key=K1, new=account(66, 6))
    return [check(f("payload_missing", 6), f("unsigned", 12))]


@attack
def erased_signed_by_a_stranger(log):
    """The ERASE is signed with a key that is in no key record; then with one that a pin does not vouch for."""
    drop(log, 6)
    log.keys.append(K3.record(A))
    erase(log, (C, 6, 6), key=K3)
    return [check(), check(f("payload_missing", 6), f("key_not_valid", 12), pin=K1)]


@attack
def erased_with_bad_signature(log):
    """The signature of the ERASE is another key's."""
    drop(log, 6)
    e = erase(log, (C, 6, 6))
    e["signature"] = K3.sign(e["hash"])
    return [check(f("payload_missing", 6), f("bad_signature", 12))]


@attack
def erased_at_a_broken_link(log):
    """Between the ERASE and the signature of its run an entry is missing: what the signature covers is not known."""
    drop(log, 6)
    erase(log, (C, 6, 6), key=None)
    log.append(C, 3000, 2, actor_seq=12, new=account(66, 6))
    log.append(C, 3000, 3, key=K1, actor_seq=12, new=account(66, 7))
    log.remove(13)
    return [check(f("payload_missing", 6), f("deleted", 13))]


@attack
def erased_at_a_forged_link(log):
    """An ERASE is forged before a run that is signed, as if of that run."""
    drop(log, 6)
    erase(log, (C, 6, 6), key=None)
    log.append(C, 3000, 2, key=K1, actor_seq=12, new=account(66, 6), prev_hash="cd" * 32)
    return [check(f("payload_missing", 6), f("edited", 12))]


@attack
def erased_positions_edited(log):
    """An ERASE that named 6 names 7 now."""
    drop(log, 7)
    e = erase(log, (C, 6, 6))
    e["new"] = e["new"].replace("6, 6", "7, 7")
    return [check(f("payload_missing", 7), f("edited", 12))]


@attack
def erased_op_edited(log):
    """An entry becomes an ERASE without being hashed anew."""
    drop(log, 6)
    e = log.append(C, 3000, key=K1, new=compact({"reason": "", "part": "row", "entries": [[A, 1, 6, 6]]}))
    e["op"] = "ERASE"
    return [check(f("payload_missing", 6), f("edited", 12))]


@attack
def erased_the_erase(log):
    """The row part of the ERASE is missing too, and another names it; that accounts for neither."""
    drop(log, 6)
    erase(log, (C, 6, 6))
    erase(log, (C, 12, 12))
    drop(log, 12)
    return [check(f("payload_missing", 6, 12))]


@attack
def erased_itself(log):
    """An ERASE that names itself and is missing."""
    erase(log, (C, 12, 12), part="row")
    drop(log, 12)
    return [check(f("payload_missing", 12))]


@attack
def erased_the_actor_of_the_erase(log):
    """No attack: who erased is erased."""
    drop(log, 6)
    erase(log, (C, 6, 6))
    erase(log, (C, 12, 12), part="actor")
    drop(log, 12, part="actor")
    return [check(pin=K1)]


@attack
def erased_in_another_form(log):
    """Eight ERASEs, each not quite of the form, and so naming nothing."""
    drop(log, 6)
    good = {"reason": "", "part": "row", "entries": [[A, 1, 6, 6]]}
    for new in (
        compact({**good, "part": "rows"}), compact({**good, "more": 1}), compact({**good, "reason": None}),
        compact({**good, "entries": [[A.upper(), 1, 6, 6]]}), compact({**good, "entries": [[A, 1, 6]]}),
        compact({**good, "entries": [[A, 1, 6, 6], [A, 1, 7, 5]]}), compact(good).replace("6, 6]", "6.0, 6]"),
        compact(good).replace('"part"', '"reason": "", "part"'),
    ):
        erase(log, new=new)
    log.append(C, 3000, key=K1, op="ERASE", row_key=compact(good))
    return [check(f("payload_missing", 6))]


def main(directory):
    (directory / "tampered").mkdir(parents=True, exist_ok=True)

    def write(name, text):
        (directory / name).write_bytes(text.encode())

    def pretty(value):
        return json.dumps(value, ensure_ascii=False, indent=1) + "\n"

    write("entries.json", pretty(known_answers()))
    whole = whole_log()
    write("whole.jsonl", whole.text())
    write("whole.heads.json", pretty(whole.heads()))

    cases = [{
        "file": "../whole.jsonl", "description": "The whole log: valid, unless a key is pinned that it does not descend from.",
        "checks": [check(), check(heads=True), check(pin=K1, heads=True), check(signed_places(whole, A), pin=K2),
                   check(signed_places(whole, A), signed_places(whole, B), pin=K3)],
    }]
    for name, tamper in ATTACKS.items():
        log = copy.deepcopy(whole)
        checks = tamper(log)
        write(f"tampered/{name}.jsonl", log.text())
        cases.append({"file": name + ".jsonl", "description": tamper.__doc__, "checks": checks})
    write("tampered/expected.json", pretty({
        "description": (
            "What a verifier must find in each file: for each check (with this pinned fingerprint or none, with these heads "
            "or none; paths are relative to this file) exactly these findings, and these notices, in any order. All else in a file is as in "
            "../whole.jsonl. Unless another is named, the chain is (tenant acme, lane 1, incarnation 0192…): 1-3 xid 100, "
            "signed at 3; 4 xid 101, signed; 5-8 xid 102, signed at 6 and 8; 9 xid 103, signed; 10-11 xid 104, signed at 11."
        ),
        "cases": cases,
    }))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
