# SPDX-License-Identifier: Apache-2.0
"""Holds the results.json of `kvsim report` against lm-evaluation-harness, and against spoiled copies of it.

Usage: check_harness.py results.json    (lm-eval 0.4.13 without its dependencies, pytablewriter, pydantic)

make_table has to print every number of every row; EvalResults is the type that its tools read files as. Ends with 1 where not.
"""
import copy
import json
import sys

from lm_eval.result_schema import EvalResults
from lm_eval.utils import make_table
from pydantic import TypeAdapter


def holds(file):
    TypeAdapter(EvalResults).validate_json(json.dumps(file), strict=True)
    cells = [[cell.strip() for cell in line.split("|")] for line in make_table(file).splitlines()]
    printed = {(row[5], row[7]) for row in cells if len(row) > 8}
    for row in file["results"].values():
        for key, value in row.items():
            metric, comma, _ = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                assert (metric, f"{value:.4f}") in printed, key
    aliases = {row["alias"] for row in file["results"].values()}
    assert aliases <= {row[1].removeprefix("- ") for row in cells if len(row) > 8}, aliases


def without(*keys):
    def spoil(file):
        for key in keys[:-1]:
            file = file[key] if key else next(iter(file.values()))
        del file[keys[-1]]
    return spoil


def put(value, *keys):
    def spoil(file):
        for key in keys[:-1]:
            file = file[key] if key else next(iter(file.values()))
        file[keys[-1]] = value
    return spoil


SPOILS = [without("versions"), without("results", "", "name"), without("results", "", "sample_len"),
          put("much", "results", "", "acc,none"), put(0, "configs", "", "seed"), put({}, "group_subtasks", "x")]


def main(path):
    with open(path) as f:
        file = json.load(f)
    holds(file)
    refused = 0
    for spoil in SPOILS:
        copied = copy.deepcopy(file)
        spoil(copied)
        try:
            holds(copied)
        except Exception:
            refused += 1
    print(f"{path}: {len(file['results'])} rows printed and typed, {refused} of {len(SPOILS)} spoiled copies refused")
    return 0 if refused == len(SPOILS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
