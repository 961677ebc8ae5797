#!/usr/bin/env python3
"""Break SQL functions one after the other, as list.toml says, and name the tests that notice each.

    tests/mutations/run.py [WORD ...]    only those whose sentence or function has all the words

The tests run on databases whose template has the broken function (FASTPUBSUB_TEST_MUTATION).
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = "engine::model::the_engine_agrees_with_its_model_seed_"
# arguments of the test binary, the quick ones first: the others need not run when one fails
STAGES = [
    ["--exact", "sql::every_sentence_of_the_assert_files_holds"],
    *[["--exact", f"{MODEL}{seed}"] for seed in range(1, 9)],
    ["engine::", "--skip", "model", "--skip", "plans", "--skip", "flatness"],
    ["maintenance::"],
]
TOO_LONG = 240


def functions():
    """The text of each function of sql/, by its name."""
    found = {}
    function = re.compile(r"^create function pubsub\.(\w+)\(.*?^(?:\$\$|end);\n", re.M | re.S)
    for file in sorted(ROOT.glob("sql/**/*.sql")):
        for match in function.finditer(file.read_text()):
            found.setdefault(match[1], []).append(match[0])
    return found


def broken(mutation, known):
    """SQL that replaces the function of a mutation."""
    name = mutation["function"]
    texts = known.get(name, [])
    if len(texts) != 1:
        sys.exit(f"sql/ has {len(texts)} functions {name}")
    text = texts[0].replace("create function", "create or replace function", 1)
    for old, new in mutation["change"]:
        if old not in text:
            sys.exit(f"{name} does not have this any more: {old}")
        text = text.replace(old, new)
    # settings of a function are lost when it is replaced
    [settings] = ROOT.glob("sql/**/search_path.sql")
    return text + settings.read_text()


def build(directory):
    """A copy of the test binary, so that one may go on working meanwhile."""
    built = subprocess.run(
        ["cargo", "test", "--no-run", "--test", "it", "--message-format", "json"],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    [executable] = [artifact["executable"] for artifact in artifacts
        if artifact.get("executable") and artifact["target"]["name"] == "it"]
    return shutil.copy(executable, directory)


def failures(binary, stage, environment):
    """The tests that fail, and of the assert files the sentences."""
    try:
        ran = subprocess.run(
            [binary, *stage], cwd=ROOT, env=os.environ | environment, text=True, timeout=TOO_LONG,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return [f"{' '.join(stage)} hangs"]
    if ran.returncode == 0:
        return []
    sentences = re.findall(r"^(\w+\.sql: .*)$", ran.stdout, re.M)
    failed = re.findall(r"^test (\S+) \.\.\. FAILED$", ran.stdout, re.M)
    return sentences or failed or sys.exit(ran.stdout)


def noticed_by(binary, file, first):
    """The tests that fail first on the broken database; none when all pass."""
    environment = {"FASTPUBSUB_TEST_MUTATION": str(file), "RUST_BACKTRACE": "0"}
    model, _, seed = first.partition(" ")
    if model == "model":
        found = failures(binary, ["--exact", MODEL + seed], environment)
    else:
        found = failures(binary, STAGES[0], environment | {"FASTPUBSUB_TEST_SQL": first})
    for stage in STAGES:
        found = found or failures(binary, stage, environment)
    return found


def main():
    with open(ROOT / "tests/mutations/list.toml", "rb") as file:
        mutations = tomllib.load(file)["mutation"]
    known = functions()
    wanted = [(mutation, broken(mutation, known)) for mutation in mutations
        if all(word in mutation["breaks"] + " " + mutation["function"] for word in sys.argv[1:])]
    missed = []
    with tempfile.TemporaryDirectory() as directory:
        binary = build(directory)
        file = pathlib.Path(directory) / "mutation.sql"
        for mutation, text in wanted:
            file.write_text(text)
            began = time.monotonic()
            noticed = noticed_by(binary, file, mutation["first"])
            seconds = round(time.monotonic() - began)
            print(f"{mutation['breaks']} ({mutation['function']}, {seconds} s)")
            for sentence in noticed[:3] or ["NOBODY NOTICES"]:
                print(f"    {sentence}", flush=True)
            if not noticed:
                missed.append(mutation["breaks"])
    if missed:
        sys.exit(f"{len(missed)} of {len(wanted)} were not noticed: " + "; ".join(missed))
    print(f"all {len(wanted)} were noticed")


main()
