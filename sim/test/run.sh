# SPDX-License-Identifier: Apache-2.0
# Runs test programs and CLI scripts, JOBS at a time (as many as there are cores), shows what failed and how long each
# took, and ends in one line: N passed, N failed, N skipped. What is shown keeps the order of the list, whichever ends first.
# Each speaks TAP on stdout: "ok", "not ok", "ok ... # SKIP why". One whose source says "Runs alone: why" comes first and
# has the machine to itself.
set -u
: "${BUILD:=build}" "${JOBS:=$(nproc)}"
case $JOBS in '' | *[!0-9]* | 0) echo "JOBS=$JOBS: a number of tests that run at once is expected, 1 or more" >&2 && exit 2 ;; esac
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT && trap 'exit 130' INT
export CMOCKA_MESSAGE_OUTPUT=TAP
[ -n "${KVSIM_DATA-}" ] || unset KVSIM_DATA # no benchmark files: what needs them is skipped

# ---- the list: a line "NUMBER TEST" each

runs_alone() {
    source=${1#"$BUILD"/}
    grep -qs '^\(//\|#\) Runs alone: ' "$source" "$source.c" "$source.cc"
}
for t in "$@" sim/test/test_*.sh sim/cli/test/*.sh; do
    if runs_alone "$t"; then echo "$t" >>"$dir/alone"; else echo "$t" >>"$dir/together"; fi
done
touch "$dir/alone"
cat "$dir/alone" "$dir/together" | awk '{ print NR, $0 }' >"$dir/list"
n_alone=$(wc -l <"$dir/alone")

# ---- running: a line "NUMBER CODE SECONDS" for each that has ended; its output is in the file NUMBER

# Stops where whoever was to be told has gone.
one='
    kill -0 "$1" 2>/dev/null || exit 255
    began=$(date +%s)
    case $3 in *.sh) sh "$3" ;; *) "$3" ;; esac >"$0/$2" 2>&1
    code=$?
    echo "$2 $code $(($(date +%s) - began))"
'
run() { xargs -r -P "$1" -n 2 sh -c "$one" "$dir" $$; }
run_all() {
    head -n "$n_alone" "$dir/list" | run 1
    tail -n +$((n_alone + 1)) "$dir/list" | run "$JOBS"
}

# ---- telling: each as soon as all before it are told

passed=0 failed=0 skipped=0
tell() { # tell TEST LOG CODE SECONDS
    # cmocka calls a skipped test "not ok N # SKIP".
    skip=$(grep -ci '^\(not \)*ok.*# SKIP' "$2")
    ok=$(grep -v '# SKIP' "$2" | grep -c '^ok') bad=$(grep -v '# SKIP' "$2" | grep -c '^not ok')
    # A program that dies without saying "not ok" has failed all the same.
    [ "$3" != 0 ] && [ "$bad" = 0 ] && bad=1
    [ "$ok$bad$skip" = 000 ] && bad=1
    echo "$1: $ok passed, $bad failed$([ "$skip" = 0 ] || echo ", $skip skipped") ($4 s)"
    grep -i '# SKIP' "$2" | sed 's/^/    /'
    # What failed with what was said around it, and the end, where a program that died speaks.
    [ "$bad" = 0 ] || { grep -B 3 -A 12 '^not ok' "$2"; echo ...; tail -n 20 "$2"; } | sed 's/^/    /'
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
}
tell_next() { # fails where the next of the list has not ended
    [ -e "$dir/$next.ended" ] || return 1
    read -r code seconds <"$dir/$next.ended"
    tell "$t" "$dir/$next" "$code" "$seconds"
    read -r next t <&3
}
run_all | {
    exec 3<"$dir/list"
    read -r next t <&3
    while read -r number code seconds; do
        echo "$code $seconds" >"$dir/$number.ended"
        while tell_next; do :; done
    done
    while [ "$next" ]; do
        tell_next && continue
        echo "$t: 0 passed, 1 failed (it was not run to its end)"
        failed=$((failed + 1))
        read -r next t <&3
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
