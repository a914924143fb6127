# SPDX-License-Identifier: Apache-2.0
# Prints the library's interface, one symbol a line: the functions and tables that the headers of sim/kvsim.h
# declare. `make symbols` writes it to sim/kvsim.symbols, which install.sh exports and a test compares.
set -eu
list=$(mktemp) && trap 'rm -f "$list"' EXIT
{
    gcc -std=c17 -I. -fsyntax-only -aux-info "$list" -x c sim/kvsim.h
    sed -n 's|^/\* \./.*:NC \*/ extern [^(]*[ *]\(kv_[a-z0-9_]*\) (.*|\1|p' "$list"
    gcc -std=c17 -I. -E -P -x c sim/kvsim.h | tr '\n;' ' \n' | sed -n 's/^ *extern [^(]*[ *]\(kv_[a-z0-9_]*\)\(\[.*\)*$/\1/p'
} | grep -v '^kv_policy_entry$' | LC_ALL=C sort -u # a plug-in exports that one
