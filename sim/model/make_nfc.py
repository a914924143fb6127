#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes nfc_pairs.def, nfc_compose.def and nfc_classes.def from Python's unicodedata.

  python3 sim/model/make_nfc.py        Python 3.11: Unicode 14.0.0, as PCRE2 10.40 to 10.42 have it

Hangul syllables are left out: they are computed (The Unicode Standard, section 3.12).
"""
import pathlib
import sys
import unicodedata

HERE = pathlib.Path(__file__).parent
VERSION = unicodedata.unidata_version


def pairs():
    """(character, first, second) of each canonical decomposition; second 0 for a single one."""
    for c in range(0x110000):
        mapping = unicodedata.decomposition(chr(c))
        if mapping and not mapping.startswith("<"):
            parts = [int(x, 16) for x in mapping.split()]
            yield c, parts[0], parts[1] if len(parts) > 1 else 0


def composes(c, first, second):
    """Whether the pair is put together again: not where the character is excluded."""
    return second and unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(c)


def classes():
    """(first, last, combining class) of runs of characters whose class is not 0."""
    runs = []
    for c in range(0x110000):
        k = unicodedata.combining(chr(c))
        if k and runs and runs[-1][1] == c - 1 and runs[-1][2] == k:
            runs[-1][1] = c
        elif k:
            runs.append([c, c, k])
    return runs


def write(name, what, items):
    lines = [f"// {what}. Unicode {VERSION}; written by make_nfc.py.", "// clang-format off"]
    line = ""
    for item in items:
        if len(line) + len(item) > 99:
            lines.append(line)
            line = ""
        line += item
    (HERE / name).write_text("\n".join(lines + [line]) + "\n")


def main():
    table = list(pairs())
    composed = [i for i, row in enumerate(table) if composes(*row)]
    composed.sort(key=lambda i: table[i][1:])
    write("nfc_pairs.def", "{character, its decomposition's first and second or 0}, by character",
          [f"{{0x{c:X},0x{a:X},{f'0x{b:X}' if b else 0}}}," for c, a, b in table])
    write("nfc_compose.def", "Rows of nfc_pairs.def that are put together again, by first and second",
          [f"{i}," for i in composed])
    write("nfc_classes.def", "{first, last, canonical combining class}, by character",
          [f"{{0x{a:X},0x{b:X},{k}}}," for a, b, k in classes()])


if __name__ == "__main__":
    sys.exit(main())
