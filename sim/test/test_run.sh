# SPDX-License-Identifier: Apache-2.0
# The runner of tests: whatever ends first, results keep the order of the list, each whole; what dies has failed; a test
# that runs alone is alone; an interruption ends everything.
root=$PWD
. sim/cli/test/lib/tap.sh
mkdir -p sim/test sim/cli/test
runner() { BUILD=none sh "$root/sim/test/run.sh" "$@"; }
test_of() { cat >"sim/test/test_$1.sh"; } # a test of the list, on stdin
without_seconds() { sed 's/ ([0-9]* s)$//' "$@"; }

test_of a <<'T'
until [ -e b.ended ]; do sleep 0.05; done
echo 'ok 1 - the last to end, told first'
T
test_of b <<'T'
echo 'ok 1 - one'
touch b.ended
echo 'ok 2 - two # SKIP no reason'
T
echo 'echo "ok 1 - a script"' >sim/cli/test/c.sh
JOBS=2 runner >said
code=$?
without_seconds said >got
cat >wanted <<'W'
sim/test/test_a.sh: 1 passed, 0 failed
sim/test/test_b.sh: 1 passed, 0 failed, 1 skipped
    ok 2 - two # SKIP no reason
sim/cli/test/c.sh: 1 passed, 0 failed
3 passed, 0 failed, 1 skipped
W
check "results come with the seconds of each" test "$(grep -c ' ([0-9]* s)$' said)" = 3
check 'in the order of the list, and nothing else is said' cmp wanted got
check 'a run without a fault ends well' test $code = 0
JOBS=1 runner | without_seconds >got
check 'one at a time says the same' cmp wanted got

# ---- faults

test_of a <<'T'
echo 'ok 1 - before'
kill -SEGV $$
T
echo 'echo "not ok 1 - wrong"; echo "# because"' | test_of b
echo 'exit 0' | test_of d
printf '#!/bin/sh\necho "ok 1 - a program"\nexit 3\n' >program && chmod +x program
JOBS=2 runner ./program >said
code=$?
without_seconds said >got
check 'a test that a signal ends has failed' grep -qx 'sim/test/test_a.sh: 1 passed, 1 failed' got
check 'so has one that says "not ok"' grep -qx 'sim/test/test_b.sh: 0 passed, 1 failed' got
check 'and is shown' grep -qx '    # because' got
check 'so has one that says nothing' grep -qx 'sim/test/test_d.sh: 0 passed, 1 failed' got
check 'and a program whose code is not 0' grep -qx './program: 1 passed, 1 failed' got
check 'all are counted in the last line' test "$(tail -n 1 got)" = '3 passed, 4 failed, 0 skipped'
check 'and the run has failed' test $code = 1
echo 'kill -KILL $PPID' | test_of a
JOBS=1 runner >got 2>/dev/null
code=$?
check 'whoever ends the runner of a test fails what did not run' test "$code $(tail -n 1 got)" = '1 0 passed, 4 failed, 0 skipped'
rm program sim/test/test_*.sh

# ---- alone

for i in a b d; do
    test_of $i <<'T'
mkdir busy && sleep 0.3 && rmdir busy && echo 'ok 1 - nobody else was there' || echo 'not ok 1 - not alone'
T
done
sed -i '1i # Runs alone: it is busy.' sim/test/test_[bd].sh
JOBS=4 runner | without_seconds >got
printf '%s: 1 passed, 0 failed\n' sim/test/test_b.sh sim/test/test_d.sh sim/test/test_a.sh sim/cli/test/c.sh >wanted
echo '4 passed, 0 failed, 0 skipped' >>wanted
check 'tests that run alone come first, one after another' cmp wanted got
rm sim/test/test_*.sh

# ---- an interruption

for i in a b c; do
    test_of $i <<'T'
echo $$ >>begun
while sleep 0.1; do echo >>beats; done
T
done
for signal in INT TERM; do
    rm -f begun beats
    # A shell's own children in the background are deaf to SIGINT.
    JOBS=2 BUILD=none env --default-signal=INT setsid sh "$root/sim/test/run.sh" >got 2>&1 &
    pid=$!
    until [ "$(cat begun 2>/dev/null | wc -l)" = 2 ] && [ -s beats ]; do sleep 0.05; done
    kill -s $signal -- -$pid
    wait $pid
    check "SIG$signal ends the run" test $? != 0
    sleep 0.2
    beats=$(wc -c <beats)
    sleep 1
    check 'and all that it ran' test "$(wc -c <beats)" = "$beats"
    check 'without a word of results' test ! -s got
    check 'or another test' test "$(wc -l <begun)" = 2
done
finish
