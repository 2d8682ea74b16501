#!/usr/bin/env python3
"""Verify an exported audit log. An independent reading of docs/format.md; section numbers below are that page's.

    custody_check.py EXPORT.jsonl [--heads HEADS.json] [--pin FINGERPRINT]

EXPORT may be "-" for standard input. Every finding is printed as one JSON line as soon as it is known, and a summary as
the last line. Exit status: 0 valid, 1 findings (an empty log is one), 2 the input cannot be read as an export: one line on
standard error says why, and there is no summary. The export is streamed: memory grows with the findings, the keys, the
heads, and the parts that are missing from one tenant's entries, never with the entries.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Unreadable(Exception):
    """The input is not an export (or not a list of heads) of this format, so nothing can be said about the log."""


# ---------------------------------------------------------------------------------------------------------------------
# Section 1: fields. Each function encodes one value, None being absent.

I64_MIN, I64_MAX = -(2**63), 2**63 - 1


def _field(tag, data):
    return b"\x00" if data is None else bytes([tag]) + len(data).to_bytes(4, "big") + data


def f_bytes(value):
    """The field of some bytes."""
    return _field(1, value)


def f_text(value):
    """The field of a text."""
    return _field(2, None if value is None else value.encode("utf-8"))


def f_integer(value):
    """The field of a 64-bit signed integer."""
    return _field(3, None if value is None else value.to_bytes(8, "big", signed=True))


def f_uuid(value):
    """The field of a uuid, given in its hyphenated text form."""
    return _field(4, None if value is None else bytes.fromhex(value.replace("-", "")))


def f_boolean(value):
    """The field of a boolean."""
    return _field(5, None if value is None else bytes([value]))


# ---------------------------------------------------------------------------------------------------------------------
# Sections 3 to 5: digests, hashes, keys and signatures.


def _sha256(domain, *fields):
    return hashlib.sha256(domain + b"\x00" + b"".join(fields)).digest()


def actor_digest(salt, actor):
    """The digest of an actor part (section 3)."""
    return _sha256(b"pg_custody/actor/v1", f_bytes(salt), f_text(actor))


def row_digest(salt, row_key, old, new):
    """The digest of a row part (section 3)."""
    return _sha256(b"pg_custody/row/v1", f_bytes(salt), f_text(row_key), f_text(old), f_text(new))


def baseline_digest(salt, columns):
    """What stands for a row in a baseline of form `digest` (section 6): `columns` maps names to values, both as JSON texts."""
    present = sorted((name.encode(), name, value) for name, value in columns.items() if value != "null")
    fields = (f_text(part) for _, *pair in present for part in pair)
    return f"{salt.hex()}:{_sha256(b'pg_custody/baseline/v1', f_bytes(salt), *fields).hex()}"


def genesis_hash(incarnation, tenant, lane):
    """What stands in `prev_hash` of a chain's first entry (section 4)."""
    return _sha256(b"pg_custody/genesis/v1", f_uuid(incarnation), f_text(tenant), f_integer(lane))


def _hash_parts(e):
    """The bytes that an entry's hash covers before and after `seq`."""
    before = (f_bytes(e.prev_hash), f_uuid(e.incarnation), f_text(e.tenant), f_integer(e.lane))
    after = (
        f_integer(e.lsn), f_integer(e.ordinal), f_integer(e.at), f_integer(e.xid), f_text(e.op),
        f_text(e.schema_name), f_text(e.table_name), f_text(e.login_role), f_text(e.acting_role), f_uuid(e.move_id),
        f_integer(e.actor_seq), f_boolean(e.signs_run), f_text(e.key_id), f_bytes(e.actor_digest), f_bytes(e.row_digest),
    )
    return b"".join(before), b"".join(after)


def entry_hash(e):
    """The hash of an entry, from its other columns (section 4)."""
    before, after = _hash_parts(e)
    return _sha256(b"pg_custody/entry/v1", before, f_integer(e.seq), after)


def seq_that_hashes(e, reach=1024):
    """Another `seq`, at most `reach` away, with which the entry's columns give its stored hash; None if there is none."""
    before, after = _hash_parts(e)
    for distance in range(1, reach + 1):
        for seq in (e.seq - distance, e.seq + distance):
            if I64_MIN <= seq <= I64_MAX and _sha256(b"pg_custody/entry/v1", before, f_integer(seq), after) == e.hash:
                return seq
    return None


def fingerprint(public_key):
    """The fingerprint of a public key; its first 16 characters are the key's id (section 5)."""
    return _sha256(b"pg_custody/key/v1", public_key).hex()


def run_message(entry_hash_):
    """What the signature at an entry with this hash signs (section 5)."""
    return b"pg_custody/run/v1\x00" + entry_hash_


def endorsement_message(incarnation, public_key, from_lsn=None):
    """What a predecessor signs to endorse a key (section 5)."""
    if from_lsn is None:
        return b"pg_custody/endorse/v1\x00" + f_uuid(incarnation) + f_bytes(public_key)
    return b"pg_custody/endorse/v2\x00" + f_uuid(incarnation) + f_bytes(public_key) + f_integer(from_lsn)


def end_message(ended, incarnation, public_key, until_lsn):
    """What a later key signs to say where a key ends (section 5)."""
    domain = b"pg_custody/" + ended.encode() + b"/v1\x00"
    return domain + f_uuid(incarnation) + f_bytes(public_key) + f_integer(until_lsn)


P = 2**255 - 19  # the field
L = 2**252 + 27742317777372353535851937790883648493  # the order of the base point
_Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
# The eight points of small order have these y: 1 (order 1), -1 (2), 0 (4), and ±_Y8 (8). Both signs of x are refused,
# which also refuses the only encodings with x = 0 and the sign bit set.
SMALL_ORDER_Y = frozenset({1, P - 1, 0, _Y8, P - _Y8})


def _acceptable_point(encoded):
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    return y < P and y not in SMALL_ORDER_Y


def verify_strictly(public_key, signature, message):
    """Whether an Ed25519 signature holds in the strict sense of the format.

    OpenSSL checks the cofactorless equation, but takes small-order points and public keys that are not canonically
    encoded; what it checks besides is checked here all the same, so that the answer hangs on no version of it.
    """
    if len(public_key) != 32 or len(signature) != 64:
        return False
    if not _acceptable_point(public_key) or not _acceptable_point(signature[:32]):
        return False
    if int.from_bytes(signature[32:], "little") >= L:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class Key:
    """One registration of a public key for an incarnation. The same key for another incarnation is another Key, since
    an endorsement names the incarnation that it is for."""

    incarnation: str
    public_key: bytes
    predecessor: str | None
    endorsement: bytes | None
    from_lsn: int | None
    recovers: str | None
    ended: str | None
    until_lsn: int | None
    ended_by: str | None
    end_signature: bytes | None

    @property
    def fingerprint(self):
        return fingerprint(self.public_key)

    @property
    def key_id(self):
        return self.fingerprint[:16]


class Keys:
    """The keys that the export lists, and which of them are trusted."""

    def __init__(self, pin):
        self._pin = pin
        self._registered = {}  # a dictionary for its order
        self._trusted = None  # by (incarnation, key_id); made when the first entry asks
        self._until = {}  # by (incarnation, public key), where an end counts

    def add(self, record):
        """Take a key record. One whose key_id is not its public key's registers nothing."""
        life = [getattr(record, member, None) for member in KEY_LIFE]
        key = Key(record.incarnation, record.public_key, record.predecessor, record.endorsement, *life)
        if len(key.public_key) == 32 and key.key_id == record.key_id:
            self._registered[key] = None

    def find(self, incarnation, key_id):
        """The trusted keys of that id for that incarnation: one as a rule, but an id is only 64 bits of a hash."""
        if self._trusted is None:
            self._trusted = defaultdict(list)
            for key in self._find_trusted():
                self._trusted[key.incarnation, key.key_id].append(key)
        return self._trusted.get((incarnation, key_id), ())

    def valid(self, incarnation, key_id, lsn):
        """Those of them that are valid at an lsn."""
        return [key for key in self.find(incarnation, key_id)
                if (key.from_lsn is None or key.from_lsn <= lsn)
                and lsn <= self._until.get((incarnation, key.public_key), I64_MAX)]

    def recovered(self):
        """The registered keys that took over from lost ones."""
        return [key for key in self._registered if key.recovers is not None]

    def _find_trusted(self):
        trusted = self._registered if self._pin is None else self._reached_from_pin(set())
        revoked = set()
        for key in self._registered:
            if key.ended not in ("retire", "revoke") or None in (key.until_lsn, key.ended_by, key.end_signature):
                continue
            message = end_message(key.ended, key.incarnation, key.public_key, key.until_lsn)
            if any(by.incarnation == key.incarnation and by.key_id == key.ended_by and by.from_lsn is not None
                   and (key.from_lsn is None or key.from_lsn < by.from_lsn)
                   and verify_strictly(by.public_key, key.end_signature, message) for by in trusted):
                place = key.incarnation, key.public_key
                self._until[place] = min(key.until_lsn, self._until.get(place, I64_MAX))
                if key.ended == "revoke":
                    revoked.add(key.public_key)
        return self._reached_from_pin(revoked) if revoked and self._pin is not None else trusted

    def _reached_from_pin(self, revoked):
        successors = defaultdict(list)
        for key in self._registered:
            if key.predecessor is not None and key.endorsement is not None:
                successors[key.predecessor].append(key)
        trusted = {key: None for key in self._registered if key.fingerprint == self._pin}
        waiting = list(trusted)
        while waiting:
            trusting = waiting.pop()
            if trusting.public_key in revoked:
                continue
            for key in successors[trusting.key_id]:
                message = endorsement_message(key.incarnation, key.public_key, key.from_lsn)
                if key not in trusted and verify_strictly(trusting.public_key, key.endorsement, message):
                    trusted[key] = None
                    waiting.append(key)
        return trusted


# ---------------------------------------------------------------------------------------------------------------------
# Section 7: reading. Whatever does not have exactly the documented form is refused, for what another reader of the same
# file would take differently must not pass here as verified.

_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _read_text(value):
    if not isinstance(value, str):
        raise ValueError("not a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("has half a surrogate pair, which is no text") from None
    return value


def _read_bytes(value):
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError("not lower-case hex")
    return bytes.fromhex(value)


def _read_uuid(value):
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise ValueError("not a lower-case hyphenated uuid")
    return value


def _read_integer(value):
    if type(value) is not int:  # bool is a subclass of int
        raise ValueError("not an integer")
    if not I64_MIN <= value <= I64_MAX:
        raise ValueError("not a signed 64-bit integer")
    return value


def _read_boolean(value):
    if not isinstance(value, bool):
        raise ValueError("not a boolean")
    return value


def _or_absent(read):
    return lambda value: None if value is None else read(value)


ENTRY = {
    "incarnation": _read_uuid, "tenant": _read_text, "lane": _read_integer, "seq": _read_integer,
    "format": _read_integer, "lsn": _read_integer, "ordinal": _read_integer, "at": _read_integer,
    "xid": _read_integer, "op": _read_text, "schema_name": _or_absent(_read_text),
    "table_name": _or_absent(_read_text), "login_role": _read_text, "acting_role": _read_text,
    "move_id": _or_absent(_read_uuid), "actor_seq": _read_integer, "signs_run": _read_boolean,
    "key_id": _or_absent(_read_text), "actor_salt": _or_absent(_read_bytes), "actor": _or_absent(_read_text),
    "row_salt": _or_absent(_read_bytes), "row_key": _or_absent(_read_text), "old": _or_absent(_read_text),
    "new": _or_absent(_read_text), "actor_digest": _or_absent(_read_bytes), "row_digest": _read_bytes,
    "prev_hash": _read_bytes, "hash": _read_bytes, "signature": _or_absent(_read_bytes),
}
KEY = {
    "key_id": _read_text, "incarnation": _read_uuid, "public_key": _read_bytes, "fingerprint": _read_bytes,
    "predecessor": _or_absent(_read_text), "endorsement": _or_absent(_read_bytes),
}
KEY_LIFE = {
    "from_lsn": _or_absent(_read_integer), "recovers": _or_absent(_read_text), "ended": _or_absent(_read_text),
    "until_lsn": _or_absent(_read_integer), "ended_by": _or_absent(_read_text), "end_signature": _or_absent(_read_bytes),
}
HEAD = {"incarnation": _read_uuid, "tenant": _read_text, "lane": _read_integer, "seq": _read_integer, "hash": _read_bytes}


def _members_once(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    return members


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


def _integer(digits):
    if digits == "-0":
        raise ValueError("-0 is no integer")
    return int(digits)


def _parse(raw):
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_members_once, parse_constant=_no_constant,
                          parse_int=_integer)
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, our own two, and integers of thousands of digits
        raise Unreadable(f"not valid JSON: {error}") from None


def _shape(members, readers, what):
    """The members of a JSON object as attributes, each read by its reader."""
    if not isinstance(members, dict):
        raise Unreadable("not a JSON object")
    for name in readers:
        if name not in members:
            raise Unreadable(f"{what} has no {name}")
    for name in members:
        if name not in readers:
            raise Unreadable(f"{what} has an unknown member {json.dumps(name)}")
    result = SimpleNamespace()
    for name, read in readers.items():
        try:
            setattr(result, name, read(members[name]))
        except ValueError as error:
            raise Unreadable(f"{what}: {name} is {error}") from None
    return result


def read_export(stream, keys):
    """Yield the entries of an export, in order, putting the keys before them into `keys`."""
    place = None
    for number, raw in enumerate(stream, 1):  # a binary stream: lines end at \n alone
        try:
            members = _parse(raw)
            kind = members.pop("record", None) if isinstance(members, dict) else None
            if kind == "key":
                if place is not None:
                    raise Unreadable("a key after the first entry")
                life = KEY_LIFE if any(member in members for member in KEY_LIFE) else {}
                keys.add(_shape(members, KEY | life, "the key"))
            elif kind == "entry":
                entry = _shape(members, ENTRY, "the entry")
                here = (entry.tenant.encode("utf-8"), entry.incarnation, entry.lane, entry.seq)
                if place is not None and here < place:
                    raise Unreadable("the entries are not sorted by tenant, incarnation, lane, seq")
                place = here
                yield entry
            else:
                raise Unreadable("neither a key nor an entry")
        except Unreadable as error:
            raise Unreadable(f"line {number}: {error}") from None


def read_heads(raw):
    """The heads kept from before: by chain, the hashes by seq."""
    array = _parse(raw)
    if not isinstance(array, list):
        raise Unreadable("not a JSON array")
    heads = defaultdict(lambda: defaultdict(set))
    for number, members in enumerate(array, 1):
        try:
            head = _shape(members, HEAD, "the head")
            if head.seq < 1:
                raise Unreadable("the head: seq is below 1")
        except Unreadable as error:
            raise Unreadable(f"head {number}: {error}") from None
        heads[head.incarnation, head.tenant, head.lane][head.seq].add(head.hash)
    return heads


# ---------------------------------------------------------------------------------------------------------------------
# Section 8: verification.


class Report:
    """Prints findings, each once, and counts."""

    def __init__(self, out):
        self._out = out
        self._seen = set()
        self.entries = self.chains = self.signatures = self.notices = 0
        self.incarnations = set()
        self._searches = 1000  # for the seq of an entry whose hash is wrong: each takes 2,048 hashes

    @property
    def findings(self):
        return len(self._seen)

    def find(self, verdict, chain, seq, detail):
        """Report one finding, unless this verdict was given at this place before."""
        if (verdict, chain, seq) in self._seen:
            return
        self._seen.add((verdict, chain, seq))
        incarnation, tenant, lane = chain
        self._line(verdict=verdict, incarnation=incarnation, tenant=tenant, lane=lane, seq=seq, detail=detail)

    def notice(self, verdict, detail):
        """Report what is to be known, and is no finding."""
        self.notices += 1
        self._line(verdict=verdict, incarnation=None, tenant=None, lane=None, seq=None, notice=True, detail=detail)

    def may_search(self):
        """Whether to look for the seq of one more entry; the page lets a checker give up, lest a ruined log take days."""
        self._searches -= 1
        return self._searches >= 0

    def summarise(self, key_pinned):
        """Print the last line."""
        summary = "empty" if not self.entries else "invalid" if self.findings else "valid"
        self._line(summary=summary, entries=self.entries, chains=self.chains, signatures=self.signatures,
                   incarnations=len(self.incarnations), key_pinned=key_pinned, findings=self.findings,
                   notices=self.notices)

    def _line(self, **members):
        print(json.dumps(members), file=self._out)


def read_erasure(new):
    """What an ERASE names: (part, [(incarnation, lane, first, last)]); None if it is not of the form of section 6."""
    try:
        members = _parse(new.encode("utf-8"))
        if not isinstance(members, dict) or set(members) != {"reason", "part", "entries"}:
            return None
        _read_text(members["reason"])
        if members["part"] not in ("row", "actor") or not isinstance(members["entries"], list):
            return None
        named = []
        for stretch in members["entries"]:
            if not isinstance(stretch, list) or len(stretch) != 4:
                return None
            incarnation, lane, first, last = _read_uuid(stretch[0]), *map(_read_integer, stretch[1:])
            if not 1 <= first <= last:
                return None
            named.append((incarnation, lane, first, last))
    except (Unreadable, ValueError):
        return None
    return members["part"], named


class Tenant:
    """What is missing from one tenant's entries, and what was erased: it is weighed when all of them are known."""

    def __init__(self, tenant, report):
        self.tenant, self._report = tenant, report
        self._there = defaultdict(list)  # by (incarnation, lane): [first, last] of each stretch, in order
        self._missing = defaultdict(set)  # by (part, incarnation, lane): numbers
        self._lost = set()  # (incarnation, lane, seq): the row parts of ERASE entries
        self._named = defaultdict(list)  # by (part, incarnation, lane): (first, last)

    def there(self, e):
        """Take note of an entry."""
        stretches = self._there[e.incarnation, e.lane]
        if stretches and e.seq in (stretches[-1][1], stretches[-1][1] + 1):
            stretches[-1][1] = e.seq
        else:
            stretches.append([e.seq, e.seq])

    def missing(self, part, e):
        """Take note of a part that is missing."""
        if part == "row" and e.op == "ERASE":
            self._lost.add((e.incarnation, e.lane, e.seq))
        else:
            self._missing[part, e.incarnation, e.lane].add(e.seq)

    def erased(self, part, stretches):
        """Take note of an ERASE that counts."""
        for incarnation, lane, first, last in stretches:
            self._named[part, incarnation, lane].append((first, last))

    def end(self):
        """Say what no erasure accounts for, and what was not erased after all."""
        for incarnation, lane, seq in self._lost:
            self._find("payload_missing", incarnation, lane, seq, "the row part of an ERASE is missing")
        for (part, incarnation, lane), numbers in self._missing.items():
            named = self._named.get((part, incarnation, lane), ())
            for seq in sorted(numbers):
                if not any(first <= seq <= last for first, last in named):
                    self._find("payload_missing", incarnation, lane, seq, f"the {part} part is missing")
        for (part, incarnation, lane), named in self._named.items():
            missing = self._missing.get((part, incarnation, lane), ())
            for first, last in named:
                for start, end in self._there.get((incarnation, lane), ()):
                    for seq in range(max(first, start), min(last, end) + 1):
                        if seq not in missing and (part != "row" or (incarnation, lane, seq) not in self._lost):
                            self._find("erasure_incomplete", incarnation, lane, seq, f"the {part} part was to be erased")

    def _find(self, verdict, incarnation, lane, seq, detail):
        self._report.find(verdict, (incarnation, self.tenant, lane), seq, detail)


class Chain:
    """Verifies the entries of one chain, taken in order of seq."""

    def __init__(self, chain, keys, heads, report, tenant):
        self.chain, self._tenant = chain, tenant
        self._erasures = []  # that no signature covers yet
        self._keys, self._heads, self._report = keys, heads, report
        self._expected = 1
        self._prev = genesis_hash(*chain)
        self._before = None  # the last entry taken, and what 4 and 6 made of it
        self._before_at_fault = False
        self._before_signed = False
        report.chains += 1
        report.incarnations.add(chain[0])

    def take(self, e):
        """Verify the next entry. The numbers are those of the steps of section 8."""
        self._report.entries += 1
        in_place = e.seq == self._expected
        if e.seq > self._expected:  # 1
            self._find("deleted", self._expected, f"{e.seq - self._expected} missing before seq {e.seq}")
        elif not in_place:
            # The page does not speak of a seq that is given twice, or is below 1. It has no place in the chain: say so
            # of it, rather than blame a neighbour by 5 and 7.
            self._find("inserted", e.seq, f"seq {self._expected} was to come here")
        self._tenant.there(e)
        row_part_right = self._check_row_part(e)  # 2
        self._check_actor_part(e)  # 3
        at_fault = self._check_hash(e)  # 4
        if in_place:
            if not at_fault and not self._before_at_fault and e.prev_hash != self._prev:  # 5
                if self._before_signed or e.seq == 1:
                    self._find("inserted", e.seq, "does not continue what stands before it")
                else:
                    self._find("edited", e.seq - 1, "is not the entry that the next one was chained to")
        signed = self._check_signature(e)  # 6
        self._weigh_erasure(e, in_place, at_fault, row_part_right, signed)
        if in_place and self._before is not None:  # 7
            if self._before.xid != e.xid and not self._before.signs_run:
                self._find("unsigned", e.seq - 1, "the last entry of its run is not signed")
        if e.seq in self._heads and self._heads[e.seq] != {e.hash}:
            self._find("rewritten", e.seq, "its hash is not the one in the head kept")
        if e.op == "CAPTURE_OFF":  # 8
            self._find("capture_disabled", e.seq, "changes went unrecorded from here on")
        self._prev, self._expected = e.hash, e.seq + 1
        self._before, self._before_at_fault, self._before_signed = e, at_fault, signed

    def end(self):
        """Verify what can be told only after the last entry."""
        if not self._before.signs_run:
            self._find("unsigned", self._before.seq, "the last entry of the chain is not signed")
        if any(seq > self._before.seq for seq in self._heads):
            self._find("truncated", self._before.seq + 1, f"a head kept stands at seq {max(self._heads)}")

    def _find(self, verdict, seq, detail):
        self._report.find(verdict, self.chain, seq, detail)

    def _weigh_erasure(self, e, in_place, at_fault, row_part_right, signed):
        same_run = self._before is None or self._before.xid == e.xid or self._before.signs_run
        if not (in_place and not at_fault and e.prev_hash == self._prev and same_run):
            self._erasures.clear()  # what was waiting for a signature is cut off from it
        if e.op == "ERASE" and row_part_right and not at_fault and e.new is not None:
            erasure = read_erasure(e.new)
            if erasure is not None:
                self._erasures.append(erasure)
        if e.signs_run:
            if signed:
                for part, stretches in self._erasures:
                    self._tenant.erased(part, stretches)
            self._erasures.clear()

    def _check_row_part(self, e):
        """Returns whether it is present and right."""
        if e.row_salt is None:
            if e.row_key is None and e.old is None and e.new is None:
                self._tenant.missing("row", e)
            else:
                self._find("edited", e.seq, "the row part has no salt")
        elif row_digest(e.row_salt, e.row_key, e.old, e.new) != e.row_digest:
            self._find("edited", e.seq, "the row part is not the one digested")
        else:
            return True
        return False

    def _check_actor_part(self, e):
        if e.actor_seq != e.seq:
            if not 1 <= e.actor_seq < e.seq:
                self._find("edited", e.seq, "actor_seq names no earlier entry")
            if e.actor_salt is not None or e.actor is not None or e.actor_digest is not None:
                self._find("edited", e.seq, "has an actor part though actor_seq names another entry")
        elif e.actor_digest is None:
            self._find("edited", e.seq, "the actor part has no digest")
        elif e.actor_salt is None:
            if e.actor is None:
                self._tenant.missing("actor", e)
            else:
                self._find("edited", e.seq, "the actor part has no salt")
        elif actor_digest(e.actor_salt, e.actor) != e.actor_digest:
            self._find("edited", e.seq, "the actor part is not the one digested")

    def _check_hash(self, e):
        """Returns whether the entry is at fault in itself."""
        if e.format != 1:
            self._find("edited", e.seq, f"format {e.format} is not known")
        elif entry_hash(e) == e.hash:
            return False
        elif self._report.may_search() and (seq := seq_that_hashes(e)) is not None:
            self._find("reordered", e.seq, f"was written as seq {seq}")
        else:
            self._find("edited", e.seq, "the hash is not that of the columns")
        return True

    def _check_signature(self, e):
        """Returns whether the entry carries a valid signature."""
        if not e.signs_run:
            if e.key_id is not None or e.signature is not None:
                self._find("edited", e.seq, "has a key_id or a signature though signs_run is false")
            return False
        if e.key_id is None or e.signature is None:
            self._find("unsigned", e.seq, "its signature is missing")
            return False
        keys = self._keys.find(e.incarnation, e.key_id)
        if not keys:
            self._find("key_not_valid", e.seq, f"{json.dumps(e.key_id)} is no trusted key of this incarnation")
            return False
        keys = self._keys.valid(e.incarnation, e.key_id, e.lsn)
        if not keys:
            self._find("key_not_valid", e.seq, f"key {e.key_id} is not valid at lsn {e.lsn}")
            return False
        if not any(verify_strictly(key.public_key, e.signature, run_message(e.hash)) for key in keys):
            self._find("bad_signature", e.seq, f"its signature is not one by key {e.key_id}")
            return False
        self._report.signatures += 1
        return True


def verify(stream, heads, pin, out):
    """Verify an export from a binary stream, printing to `out`; returns whether the log is valid."""
    report, keys, current, tenant = Report(out), Keys(pin), None, None
    unseen = dict(heads)
    for entry in read_export(stream, keys):
        chain = (entry.incarnation, entry.tenant, entry.lane)
        if current is None or current.chain != chain:
            if current is not None:
                current.end()
            if tenant is None or tenant.tenant != entry.tenant:
                if tenant is not None:
                    tenant.end()
                tenant = Tenant(entry.tenant, report)
            current = Chain(chain, keys, unseen.pop(chain, {}), report, tenant)
        current.take(entry)
    if current is not None:
        current.end()
        tenant.end()
    else:
        report.find("empty", (None, None, None), None, "there are no entries")
    for chain in unseen:
        report.find("truncated", chain, 1, "the chain of a head kept does not exist")
    for key in keys.recovered():
        report.notice("key_recovered", f"key {key.key_id} took over from {json.dumps(key.recovers)}, which was lost")
    report.summarise(key_pinned=pin is not None)
    return report.findings == 0


def main(argv=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Verify an exported audit log.", allow_abbrev=False)
    parser.add_argument("export", metavar="EXPORT.jsonl", help='the export; "-" for standard input')
    parser.add_argument("--heads", metavar="HEADS.json", help="a JSON array of heads kept from before")
    parser.add_argument("--pin", metavar="FINGERPRINT", help="trust this key, and those endorsed from it, alone")
    options = parser.parse_args(argv)
    reading = "--pin"
    try:
        if options.pin is not None and not re.fullmatch("[0-9a-f]{64}", options.pin):
            raise Unreadable("not a fingerprint: 64 lower-case hex digits")
        heads = {}
        if options.heads is not None:
            reading = options.heads
            with open(options.heads, "rb") as file:
                heads = read_heads(file.read())
        reading = options.export
        if options.export == "-":
            valid = verify(sys.stdin.buffer, heads, options.pin, sys.stdout)
        else:
            with open(options.export, "rb") as file:
                valid = verify(file, heads, options.pin, sys.stdout)
        sys.stdout.flush()
        return 0 if valid else 1
    except BrokenPipeError:
        # Whoever read the findings has gone. Point stdout elsewhere so that the interpreter's last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = "standard output was closed"
    except Unreadable as error:
        problem = f"{reading}: {error}"
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        problem = f"{reading}: {getattr(error, 'strerror', None) or error}"
    print(f"custody_check: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
