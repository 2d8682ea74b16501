"""Sorts the stacks of `perf record --call-graph dwarf,40960` into the parts of an audited write.

    perf record -p PID --call-graph dwarf,40960 -F 900 -o perf.data -- sleep 4; python3 bench/profile.py perf.data
"""

import re
import subprocess
import sys

# The first that matches a stack has it.
PARTS = [
    ("signature", r"PrivateKey::sign|ed25519"),
    ("chain's end", r"chain_end"),
    ("hash", r"FieldHasher|compute_hash|row_digest|actor_digest|sha2::sha256"),
    ("index entry_runs", r"btinsert"),
    ("index entry_search", r"Summaries|brin"),
    ("WAL of the log", r"(?s)XLogInsert.*append"),
    ("heap: finding or adding a page", r"RelationGetBufferForTuple"),
    ("heap: the tuple", r"heap_multi_insert|layout::encode|ExecStoreHeapTuple"),
    ("row to bytes", r"Images|Tuple|push_json|push_text|row_changed|Pinned"),
    ("salts, clock", r"salt|getrandom|fill_random|session::now"),
    ("journal", r"journal"),
    ("lane, opening, callbacks, guard", r"custody"),
    ("PostgreSQL's trigger queue", r"AfterTrigger"),
]


def main(file: str) -> None:
    script = ["perf", "script", "-i", file, "-F", "ip,sym"]
    stacks = subprocess.run(script, capture_output=True, text=True, check=True).stdout.split("\n\n")
    counts: dict[str, int] = {}
    for stack in filter(str.strip, stacks):
        audited = re.search("custody|AfterTrigger", stack)
        part = next((name for name, pattern in PARTS if re.search(pattern, stack)), None) if audited else None
        counts[part or "not auditing"] = counts.get(part or "not auditing", 0) + 1
    total = sum(counts.values())
    ours = total - counts.get("not auditing", 0)
    for part, count in sorted(counts.items(), key=lambda c: -c[1]):
        share = "" if part == "not auditing" else f"{100 * count / max(ours, 1):6.1f} % of auditing"
        print(f"{100 * count / total:6.1f} %  {share:24}  {part}")


if __name__ == "__main__":
    main(sys.argv[1])
