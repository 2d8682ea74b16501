"""Run custody_check.py against tests/vectors, and against input that is no export at all.

    python3 -m unittest discover -s tests/checker
"""

import contextlib
import copy
import io
import json
import random
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors"
sys.path.insert(0, str(HERE))

import custody_check as cc  # noqa: E402

WHOLE = (VECTORS / "whole.jsonl").read_bytes()
PLACE = ("verdict", "incarnation", "tenant", "lane", "seq")


def run(export, *options):
    """Run the checker on a path, or on bytes given as standard input: (status, findings, summary or None, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    stdin = SimpleNamespace(buffer=io.BytesIO(export) if isinstance(export, bytes) else None)
    path = "-" if isinstance(export, bytes) else str(export)
    real, sys.stdin = sys.stdin, stdin
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cc.main([path, *map(str, options)])
    finally:
        sys.stdin = real
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    summary = lines.pop() if lines and "summary" in lines[-1] else None
    if summary is not None:
        summary["notices"] = [line["verdict"] for line in lines if line.get("notice")]
    lines = [line for line in lines if not line.get("notice")]
    return status, lines, summary, err.getvalue()


def places(findings):
    return sorted((tuple(finding[name] for name in PLACE) for finding in findings), key=repr)


def records(data=WHOLE):
    return [json.loads(line) for line in data.splitlines()]


def lines_of(some):
    return b"".join(json.dumps(record).encode() + b"\n" for record in some)


class Export(unittest.TestCase):
    """Whole and tampered exports."""

    def test_expected_findings(self):
        directory = VECTORS / "tampered"
        cases = json.loads((directory / "expected.json").read_text("utf-8"))["cases"]
        listed = {case["file"] for case in cases}
        self.assertEqual(listed - {"../whole.jsonl"}, {path.name for path in directory.glob("*.jsonl")})
        for case in cases:
            for check in case["checks"]:
                options = []
                if check["pin"]:
                    options += ["--pin", check["pin"]]
                if check["heads"]:
                    options += ["--heads", directory / check["heads"]]
                with self.subTest(case["file"], pin=check["pin"], heads=check["heads"]):
                    status, findings, summary, err = run(directory / case["file"], *options)
                    self.assertEqual(places(findings), places(check["findings"]), case["description"])
                    self.assertEqual(status, 1 if check["findings"] else 0)
                    self.assertEqual(err, "")
                    self.assertEqual(summary["findings"], len(check["findings"]))
                    self.assertEqual(summary["notices"], check["notices"])
                    self.assertEqual(summary["key_pinned"], check["pin"] is not None)
                    self.assertTrue(all(set(finding) == {*PLACE, "detail"} for finding in findings))

    def test_summary(self):
        entries = [r for r in records() if r["record"] == "entry"]
        expected = {
            "summary": "valid", "entries": len(entries), "findings": 0, "notices": [], "incarnations": 2, "key_pinned": False,
            "chains": len({(e["incarnation"], e["tenant"], e["lane"]) for e in entries}),
            "signatures": sum(e["signs_run"] for e in entries),
        }
        self.assertEqual(run(WHOLE), (0, [], expected, ""))

    def test_empty(self):
        for data in (b"", lines_of(r for r in records() if r["record"] == "key")):
            status, findings, summary, _ = run(data)
            self.assertEqual((status, summary["summary"]), (1, "empty"))
            self.assertEqual(places(findings), [("empty", None, None, None, None)])

    def test_no_column_can_be_changed(self):
        """Whatever single column of whatever entry is changed, the log is no longer valid."""
        whole = records()
        for number, record in enumerate(whole):
            for column, value in record.items() if record["record"] == "entry" else ():
                if column == "record":
                    continue
                changed = copy.copy(record)
                changed[column] = self.other(column, value)
                data = lines_of(whole[:number] + [changed] + whole[number + 1:])
                with self.subTest(line=number + 1, column=column):
                    self.assertNotEqual(run(data)[0], 0)

    @staticmethod
    def other(column, value):
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return value + 1
        if value is None:
            byteish = column.endswith(("salt", "digest", "hash")) or column == "signature"
            return "6ba7b811-9dad-11d1-80b4-00c04fd430c8" if column == "move_id" else "" if byteish else "x"
        if value[:1] in tuple("0123456789abcdef"):
            return ("1" if value[0] == "0" else "0") + value[1:]
        return value + "x"

    def test_no_line_can_be_dropped(self):
        """With a pin and heads, the log is not valid with any one entry missing, or standing there twice."""
        whole, heads = WHOLE.splitlines(keepends=True), VECTORS / "whole.heads.json"
        for number in range(2, len(whole)):
            with self.subTest(line=number + 1):
                self.assertEqual(run(b"".join(whole[:number] + whole[number + 1:]), "--heads", heads)[0], 1)
                status, findings, _, _ = run(b"".join(whole[:number] + [whole[number]] + whole[number:]))
                entry = json.loads(whole[number])
                self.assertEqual(places(findings), [tuple({**entry, "verdict": "inserted"}[name] for name in PLACE)])
                self.assertEqual(status, 1)

    def test_seq_below_one(self):
        entry = next(r for r in records() if r["record"] == "entry" and r["tenant"] == "acme")
        keys = [r for r in records() if r["record"] == "key"]
        status, findings, _, _ = run(lines_of(keys + [{**entry, "seq": 0}]))
        self.assertEqual(status, 1)
        self.assertIn(("inserted", entry["incarnation"], "acme", 1, 0), places(findings))

    def test_search_for_seq_is_given_up(self):
        """Past a thousand entries with a wrong hash, what would be found reordered is found edited."""
        entry = next(r for r in records() if r["record"] == "entry" and r["tenant"] == "acme")
        entry.update(actor_seq=1, actor=None, actor_salt=None, actor_digest=None)
        log = [{**entry, "seq": seq} for seq in range(3000, 4001)]
        log[0]["seq"], log[-1]["lane"] = 2999, 2
        with unittest.mock.patch.object(cc, "seq_that_hashes", return_value=1) as search:
            _, findings, _, _ = run(lines_of(log))
        self.assertEqual(search.call_count, 1000)
        self.assertIn(("edited", 2, 4000), [(f["verdict"], f["lane"], f["seq"]) for f in findings])
        self.assertIn(("reordered", 1, 3999), [(f["verdict"], f["lane"], f["seq"]) for f in findings])

    def test_several_heads_of_a_chain(self):
        kept = json.loads((VECTORS / "whole.heads.json").read_text("utf-8"))
        early = [{"hash": r["hash"], **{n: r[n] for n in PLACE[1:]}} for r in records() if r["record"] == "entry" and r["seq"] == 1]
        with tempfile.TemporaryDirectory() as directory:
            heads = Path(directory) / "heads.json"
            heads.write_text(json.dumps(kept + early))
            self.assertEqual(run(WHOLE, "--heads", heads)[0], 0)
            early[0]["hash"] = "00" * 32
            heads.write_text(json.dumps(kept + early))
            _, findings, _, _ = run(WHOLE, "--heads", heads)
            self.assertEqual(places(findings), [tuple({**early[0], "verdict": "rewritten"}[name] for name in PLACE)])


class KnownAnswers(unittest.TestCase):
    """entries.json against the checker's own encoding."""

    @classmethod
    def setUpClass(cls):
        cls.answers = json.loads((VECTORS / "entries.json").read_text("utf-8"))
        cls.keys = {key["name"]: key for key in cls.answers["keys"]}

    def each(self, section):
        for number, vector in enumerate(self.answers[section]):
            with self.subTest(section, number=number):
                yield vector

    @staticmethod
    def entry(vector):
        return cc._shape(vector["entry"], cc.ENTRY, "the vector")

    def test_fields(self):
        encoders = {"bytes": cc.f_bytes, "text": cc.f_text, "integer": cc.f_integer, "uuid": cc.f_uuid, "boolean": cc.f_boolean}
        for vector in self.each("fields"):
            value = vector["value"]
            if vector["type"] == "bytes" and value is not None:
                value = bytes.fromhex(value)
            self.assertEqual(encoders[vector["type"]](value).hex(), vector["encoded"])

    def test_baseline_digest(self):
        columns = {'"n"': "1.50", '"id"': "1", '"none"': "null", '"a\\"b"': '"x\\ty"'}
        made = "000102030405060708090a0b0c0d0e0f:1f946e92642ecec1961acfb6356238f34323a5a9bac8b7b432292c6179b3c62c"
        self.assertEqual(cc.baseline_digest(bytes(range(16)), columns), made)

    def test_keys(self):
        by_id = {key["key_id"]: key for key in self.answers["keys"]}
        for key in self.each("keys"):
            public = bytes.fromhex(key["public_key"])
            private = cc_private(key["seed"])
            self.assertEqual(private.public_key().public_bytes_raw(), public)
            self.assertEqual(cc.fingerprint(public), key["fingerprint"])
            self.assertEqual(key["fingerprint"][:16], key["key_id"])
            if key["predecessor"]:
                message = cc.endorsement_message(key["incarnation"], public, key.get("from_lsn"))
                self.assertEqual(message.hex(), key["endorsement_message"])
                predecessor = bytes.fromhex(by_id[key["predecessor"]]["public_key"])
                self.assertTrue(cc.verify_strictly(predecessor, bytes.fromhex(key["endorsement"]), message))

    def test_ends(self):
        by_id = {key["key_id"]: bytes.fromhex(key["public_key"]) for key in self.answers["keys"]}
        for end in self.each("ends"):
            message = cc.end_message(end["ended"], end["incarnation"], bytes.fromhex(end["public_key"]), end["until_lsn"])
            self.assertEqual(message.hex(), end["end_message"])
            self.assertTrue(cc.verify_strictly(by_id[end["ended_by"]], bytes.fromhex(end["end_signature"]), message))

    def test_genesis(self):
        for v in self.each("genesis"):
            self.assertEqual(cc.genesis_hash(v["incarnation"], v["tenant"], v["lane"]).hex(), v["hash"])

    def test_digests(self):
        for v in self.each("row_digests"):
            self.assertEqual(cc.row_digest(bytes.fromhex(v["row_salt"]), v["row_key"], v["old"], v["new"]).hex(), v["row_digest"])
        for v in self.each("actor_digests"):
            self.assertEqual(cc.actor_digest(bytes.fromhex(v["actor_salt"]), v["actor"]).hex(), v["actor_digest"])

    def test_entries(self):
        self.assertGreaterEqual(len(self.answers["entries"]), 8)
        for v in self.each("entries"):
            e = self.entry(v)
            self.assertEqual(cc.row_digest(e.row_salt, e.row_key, e.old, e.new), e.row_digest)
            if e.actor_seq == e.seq:
                self.assertEqual(cc.actor_digest(e.actor_salt, e.actor), e.actor_digest)
            self.assertEqual(cc.entry_hash(e), e.hash)
            if v["signed_by"]:
                key = self.keys[v["signed_by"]]
                self.assertEqual(cc.run_message(e.hash).hex(), v["run_message"])
                self.assertEqual(cc_private(key["seed"]).sign(cc.run_message(e.hash)), e.signature)
                self.assertTrue(cc.verify_strictly(bytes.fromhex(key["public_key"]), e.signature, cc.run_message(e.hash)))

    def test_seq_at_the_limit(self):
        """The search for another seq stays within 64 bits."""
        for v in self.each("entries"):
            e = self.entry(v)
            self.assertIsNone(cc.seq_that_hashes(e))
            written, e.seq = e.seq, max(1, e.seq - 1024)
            self.assertEqual(cc.seq_that_hashes(e), written if written != e.seq else None)

    def test_vectors_are_what_the_generator_makes(self):
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([sys.executable, VECTORS / "make_vectors.py", directory], check=True)
            made = {path.relative_to(directory): path.read_bytes() for path in Path(directory).rglob("*.json*")}
            kept = {path.relative_to(VECTORS): path.read_bytes() for path in VECTORS.rglob("*.json*")}
            self.assertEqual(made.keys(), kept.keys())
            self.assertEqual([name for name in made if made[name] != kept[name]], [])


def cc_private(seed):
    """The private key of a seed in hex."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))


class Strictness(unittest.TestCase):
    """Ed25519 as the head of the page demands it: strictly."""

    def test_small_order_points(self):
        """The list is complete: y of order 8 solves d·y⁴ + 2·y² = 1 (2P has y = 0), and that has but two roots on the curve."""
        p, d = cc.P, -121665 * pow(121666, -1, cc.P) % cc.P
        eighth = cc.SMALL_ORDER_Y - {0, 1, p - 1}
        self.assertEqual(len(eighth), 2)
        for y in eighth:
            self.assertEqual((d * y**4 + 2 * y**2 - 1) % p, 0)
        other = -pow(d * min(eighth) ** 2, -1, p) % p  # the other root y², by Vieta: the product of both is -1/d
        self.assertEqual((d * other**2 + 2 * other - 1) % p, 0)
        self.assertEqual(pow(other, (p - 1) // 2, p), p - 1)  # which is no square

    def test_encodings_refused(self):
        key = cc_private("42" * 32)
        public, message = key.public_key().public_bytes_raw(), b"m"
        good = key.sign(message)
        self.assertTrue(cc.verify_strictly(public, good, message))
        for y in sorted(cc.SMALL_ORDER_Y) + [cc.P, cc.P + 1, cc.P + 3, 2**255 - 1]:
            for sign in (0, 1 << 255):
                point = (y | sign).to_bytes(32, "little")
                self.assertFalse(cc.verify_strictly(point, good, message))
                self.assertFalse(cc.verify_strictly(public, point + good[32:], message))
        big_s = int.from_bytes(good[32:], "little") + cc.L
        self.assertFalse(cc.verify_strictly(public, good[:32] + big_s.to_bytes(32, "little"), message))
        for signature in (b"", good[:63], good + b"\0"):
            self.assertFalse(cc.verify_strictly(public, signature, message))
        self.assertFalse(cc.verify_strictly(public[:31], good, message))

    def test_canonical_points(self):
        """No one can sign for these, so that only the check itself can be tested."""
        for y in range(2, 19):
            self.assertTrue(cc._acceptable_point(y.to_bytes(32, "little")))
            self.assertFalse(cc._acceptable_point((cc.P + y).to_bytes(32, "little")))

    def test_points_off_the_curve(self):
        for first in range(2, 40):  # about half of these y have no x
            cc.verify_strictly(bytes([first]) + bytes(31), bytes([9]) + bytes(63), b"m")


class Unreadable(unittest.TestCase):
    """Malformed input gives status 2 and one line on standard error."""

    def refuse(self, data, *options):
        status, _, summary, err = run(data, *options)
        self.assertEqual((status, summary), (2, None), err)
        self.assertRegex(err, r"\Acustody_check: [^\n]+\n\Z")
        return err

    def changed(self, column, value, kind="entry"):
        whole = records()
        record = next(r for r in whole if r["record"] == kind)
        record[column] = value
        return lines_of(whole)

    def test_lines(self):
        entry = WHOLE.splitlines()[2]
        for data in (b"\n", b"{", b"[]", b"1", b"null", b"{}", b"\xff\n", b"\xef\xbb\xbf" + WHOLE, WHOLE + b"\n", b"[" * 100000,
                     b"1" * 10000, b'{"record": NaN}', b'{"record": "head"}', b'{"record": ["entry"]}', b'{"record": {}}',
                     WHOLE[:-20], WHOLE.replace(b'"lane": 0', b'"lane": -0'), WHOLE.replace(b"\n", b" "), entry[:-1] + b', "seq": 1}', WHOLE.decode().encode("utf-16")):
            with self.subTest(data[:20]):
                self.refuse(data)

    def test_columns(self):
        values = {
            "seq": (None, "1", 1.0, True, 2**63, -(2**63) - 1, [1]), "lane": ({},), "format": ("1",), "lsn": (2**64 - 1,),
            "incarnation": (None, "", "0192A3B4-C5D6-7E8F-9A0B-1C2D3E4F5061", "0192a3b4c5d67e8f9a0b1c2d3e4f5061", 7),
            "tenant": (None, 5, "\ud800"), "op": (None, 1), "new": ({"id": 1}, 3, "\udc00"), "signs_run": (None, 1, "true"),
            "hash": (None, "AB", "abc", "a b", "zz", 1), "row_digest": (None,), "signature": (5, "xyz", "\n"), "move_id": ("x",),
            "key_id": (5,), "unknown": (None, 1),
        }
        for column, bad in values.items():
            for value in bad:
                with self.subTest(column, value=value):
                    self.assertIn(column, self.refuse(self.changed(column, value)))
        for column, value in {"public_key": "0", "incarnation": None, "fingerprint": "x", "endorsement": 5, "more": 1}.items():
            self.assertIn(column, self.refuse(self.changed(column, value, "key")))
        life = dict.fromkeys(cc.KEY_LIFE)
        for column in life:
            whole = records()
            whole[0].update({other: None for other in life if other != column})
            self.assertIn(column, self.refuse(lines_of(whole)), "together or not at all")
            whole[0][column] = 5 if column not in ("from_lsn", "until_lsn") else "5"
            self.assertIn(column, self.refuse(lines_of(whole)))

    def test_missing_columns(self):
        for column in (*cc.ENTRY, *cc.KEY):
            whole = records()
            next(r for r in whole if column in r).pop(column)
            self.assertIn(column, self.refuse(lines_of(whole)))

    def test_order(self):
        whole = WHOLE.splitlines(keepends=True)
        self.assertIn("sorted", self.refuse(b"".join(whole[:3] + [whole[5], whole[4]])))
        self.assertIn("key", self.refuse(b"".join(whole[:3] + [whole[1]])))

    def test_files_and_options(self):
        self.refuse(VECTORS / "no-such-file")
        self.refuse(VECTORS)
        self.refuse("a\0b")
        self.refuse(WHOLE, "--pin", "xyz")
        self.refuse(WHOLE, "--heads", VECTORS / "no-such-file")
        with tempfile.TemporaryDirectory() as directory:
            heads = Path(directory) / "heads.json"
            good = json.loads((VECTORS / "whole.heads.json").read_text("utf-8"))
            for bad in ("", "{}", "[1]", "[{}]", "\ud800", json.dumps([{**good[0], "seq": 0}]), json.dumps([{**good[0], "hash": None}])):
                heads.write_bytes(bad.encode("utf-8", "surrogatepass"))
                self.refuse(WHOLE, "--heads", heads)

    def test_odd_keys_and_signatures(self):
        """Strange but readable: findings, not a refusal."""
        for column, kind in (("public_key", "key"), ("endorsement", "key"), ("prev_hash", "entry"), ("hash", "entry"),
                             ("signature", "entry"), ("row_salt", "entry"), ("row_digest", "entry")):
            for value in ("", "00", "ff" * 32, "ff" * 64, "00" * 100):
                status, _, _, err = run(self.changed(column, value, kind), "--pin", records()[0]["fingerprint"])
                self.assertIn((status, err), [(1, ""), (0, "")] if column == "endorsement" else [(1, "")])

    def test_noise(self):
        """Random damage never ends in anything but a status, and never in 0 where an entry has changed."""
        chance, offset = random.Random(1), WHOLE.index(b'{"record": "entry"')
        for _ in range(300):
            data = bytearray(WHOLE)
            for _ in range(chance.randint(1, 3)):
                data[chance.randrange(offset, len(data) - 1)] = chance.randrange(256)
            status, _, _, err = run(bytes(data))
            if status == 0:  # a blank put for another, say
                self.assertEqual(records(bytes(data)), records())
            self.assertEqual(err.count("\n"), 1 if status == 2 else 0)


class CommandLine(unittest.TestCase):
    """The script as a process."""

    def script(self, *arguments, **options):
        return subprocess.run([sys.executable, HERE / "custody_check.py", *arguments], capture_output=True, **options)

    def test_status(self):
        self.assertEqual(self.script(VECTORS / "whole.jsonl").returncode, 0)
        self.assertEqual(self.script("-", input=WHOLE).returncode, 0)
        self.assertEqual(self.script(VECTORS / "tampered" / "edited_image.jsonl").returncode, 1)
        result = self.script("-", input=b"nonsense")
        self.assertEqual((result.returncode, result.stdout), (2, b""))
        self.assertEqual(result.stderr.count(b"\n"), 1)
        self.assertEqual(self.script().returncode, 2)

    def test_output_is_ascii(self):
        """So that it can be printed wherever one is, whatever the tenants are called."""
        result = self.script(VECTORS / "tampered" / "moved_to_another_tenant.jsonl", env={"LC_ALL": "C", "PYTHONUTF8": "0"})
        self.assertEqual(result.returncode, 1)
        result.stdout.decode("ascii")

    def test_closed_output(self):
        reading = subprocess.Popen([sys.executable, HERE / "custody_check.py", "-"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        reading.stdout.close()
        reading.stdout = None
        _, err = reading.communicate(WHOLE)
        self.assertEqual((reading.returncode, err), (2, b"custody_check: standard output was closed\n"))


if __name__ == "__main__":
    unittest.main()
