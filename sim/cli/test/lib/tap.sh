# SPDX-License-Identifier: Apache-2.0
# What the command-line tests share: an empty folder to work in, tiny models, and TAP lines.
#
#     . sim/cli/test/lib/tap.sh
#     tiny good                                                      makes good.gguf
#     expect 1 'kvsim: x.gguf: ...' 'a missing model' record -m x.gguf -o t
#     check 'both tables are equal' cmp -s a b
#     finish
#
# Scripts run from the repository's root with BUILD in the environment, and go to the empty folder.
set -u
build=$(cd "${BUILD:-build}" && pwd) || exit 1
kvsim=$build/kvsim
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
n=0 failed=0

# Writes NAME.gguf: "good", "other", or broken as make_gguf's list says.
tiny() {
    for kind in "$@"; do "$build/sim/cli/test/make_gguf" "$kind" "$kind.gguf" || exit 1; done
}

report() { # report STATUS NAME
    n=$((n + 1))
    [ "$1" = 0 ] && echo "ok $n - $2" && return 0
    failed=$((failed + 1))
    echo "not ok $n - $2"
    return 1
}

# check NAME COMMAND...: passes when the command does.
check() {
    name=$1
    shift
    "$@" >check.log 2>&1
    report $? "$name" || sed 's/^/# /' check.log
}

# column FILE NAME: the values of a column of a TSV file, a line each.
column() { awk -F '\t' -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) k = i } NR > 1 { print $k }' "$1"; }

# The last line on stderr and the exit code of kvsim with the given arguments must be these. Digests and
# checksums, which follow from the machine's floats, are written as HASH.
expect() { # expect CODE MESSAGE NAME ARGUMENTS...
    want_code=$1 want=$2 name=$3
    shift 3
    "$kvsim" "$@" >out.log 2>err.log
    judge $?
}

judge() {
    code=$1
    got=$(tail -n 1 err.log | sed 's/[0-9a-f]\{16\}/HASH/g')
    [ "$code" = "$want_code" ] && [ "$got" = "$want" ]
    report $? "$name" || {
        echo "# code $code, wanted $want_code"
        echo "# said   $got"
        echo "# wanted $want"
    }
}

# A copy of the repository, changes that are not committed too, with its objects: $work/house, a repository of its
# own with all in it, which ignores build/. Fails where there is no git.
copy_house() { # copy_house REPOSITORY
    git -C "$1" rev-parse --git-dir >/dev/null 2>&1 || return 1
    mkdir -p "$work/house/build"
    (cd "$1" && git ls-files --cached --others --exclude-standard | while read -r f; do
        [ -f "$f" ] && echo "$f"
    done | tar cf - -T -) | tar xf - -C "$work/house"
    (cd "$build" && find . -name '*.[oda]' -o -name assets.c -o -name commit | tar cf - -T -) | tar xf - -C "$work/house/build"
    cd "$work/house" && git init -q && echo /build/ >.git/info/exclude && git add -A
}

skip() {
    n=$((n + 1))
    echo "ok $n - $1 # SKIP $2"
}

finish() {
    echo "1..$n"
    [ "$failed" = 0 ]
    exit $?
}
