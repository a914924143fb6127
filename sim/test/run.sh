# SPDX-License-Identifier: Apache-2.0
# Runs test programs and CLI scripts, shows what failed and how long each took, and ends in one line: N passed, N failed.
# Each speaks TAP on stdout: "ok", "not ok", "ok ... # SKIP why".
set -u
passed=0 failed=0 skipped=0
log=$(mktemp) && trap 'rm -f "$log"' EXIT
export CMOCKA_MESSAGE_OUTPUT=TAP
for t in "$@" sim/test/test_*.sh sim/cli/test/*.sh; do
    began=$(date +%s)
    case $t in *.sh) sh "$t" >"$log" 2>&1 ;; *) "$t" >"$log" 2>&1 ;; esac
    code=$?
    # cmocka calls a skipped test "not ok N # SKIP".
    skip=$(grep -ci '^\(not \)*ok.*# SKIP' "$log")
    ok=$(grep -v '# SKIP' "$log" | grep -c '^ok') bad=$(grep -v '# SKIP' "$log" | grep -c '^not ok')
    # A program that dies without saying "not ok" has failed all the same.
    [ "$code" != 0 ] && [ "$bad" = 0 ] && bad=1
    [ "$ok$bad$skip" = 000 ] && bad=1
    echo "$t: $ok passed, $bad failed$([ "$skip" = 0 ] || echo ", $skip skipped") ($(($(date +%s) - began)) s)"
    grep -i '# SKIP' "$log" | sed 's/^/    /'
    # What failed with what was said around it, and the end, where a program that died speaks.
    [ "$bad" = 0 ] || { grep -B 3 -A 12 '^not ok' "$log"; echo ...; tail -n 20 "$log"; } | sed 's/^/    /'
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
