# SPDX-License-Identifier: Apache-2.0
# A sweep that is interrupted, goes on, and ends with the store of one that was not.
. sim/cli/test/lib/tap.sh

if [ ! -r "$model" ]; then
    skip "an interrupted sweep goes on" "no $model (make model)"
    done_testing
    exit
fi

all=144 # 3 specs of 12 items with 4 choices
specs='static:bits={3,8}@sym random:bits=2/8'
"$kvsim" record -q -m "$model" -t samples -n 12 --keep final -o "$tmp/trace"

# outcomes FILE.db OUT: every item and choice of every spec, and the table, as text.
outcomes() {
    {
        for spec in static:bits=3 static:bits=8 random:bits=2/8; do
            echo "$spec" && "$kvsim" outcomes "$spec" --db "$1" --tsv
        done
        "$kvsim" show --db "$1" --tsv
    } >"$2" 2>"$2.err"
}

# shellcheck disable=SC2086
check "a sweep runs to its end" 0 "" "$kvsim" sweep -q "$tmp/trace" $specs -m "$model" --db "$tmp/whole.db" -j 2
outcomes "$tmp/whole.db" "$tmp/whole.txt"
check "its outcomes are in the store" 0 "" \
    test "$(grep -c '^[0-9]' "$tmp/whole.txt")" = $all

# Interrupted a while after its work began; again and later where nothing was finished by then.
stored=0
for delay in 1 2 4 8; do
    # shellcheck disable=SC2086
    "$kvsim" sweep "$tmp/trace" $specs -m "$model" --db "$tmp/cut.db" -j 1 2>"$tmp/said" &
    pid=$!
    while ! grep -q '^sweeping' "$tmp/said" && kill -0 $pid 2>/dev/null; do sleep 0.1; done
    sleep $delay
    kill -INT $pid 2>/dev/null
    wait $pid
    code=$?
    outcomes "$tmp/cut.db" "$tmp/cut.txt"
    stored=$(grep -c '^[0-9]' "$tmp/cut.txt")
    [ "$code" = 1 ] && [ "$stored" = 0 ] || break
done
grep '^kvsim' "$tmp/said" >"$tmp/last"
echo "kvsim: sweep: interrupted; what was finished is in $tmp/cut.db, and the same command goes on" >"$tmp/want"
check "an interrupted sweep ends with code 1" 0 "" test $code = 1
same "and says that the same command goes on" "$tmp/want" "$tmp/last"
echo "# $stored of $all outcomes were stored"
check "what was finished is stored" 0 "" test "$stored" -gt 0 -a "$stored" -lt $all
# shellcheck disable=SC2086
check "the same command goes on" 0 "" "$kvsim" sweep -q "$tmp/trace" $specs -m "$model" --db "$tmp/cut.db" -j 2
outcomes "$tmp/cut.db" "$tmp/cut.txt"
same "and the stores are equal" "$tmp/whole.txt" "$tmp/cut.txt"
# shellcheck disable=SC2086
check "a finished sweep has nothing to do" 0 "" "$kvsim" sweep -q "$tmp/trace" $specs -m "$model" --db "$tmp/cut.db"
outcomes "$tmp/cut.db" "$tmp/again.txt"
same "and changes nothing" "$tmp/cut.txt" "$tmp/again.txt"

done_testing
