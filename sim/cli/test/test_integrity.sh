# SPDX-License-Identifier: Apache-2.0
# Nothing is lost and nothing edited is believed: recordings that were stopped, two at once, odd names;
# edited manifests; stores whose outcomes are run again; one name and one frontier everywhere.
. sim/cli/test/lib/tap.sh
tiny good

how='-q -j 1 -m good.gguf -t samples --stride 4 --keep final,kv,sens'
record() { "$kvsim" record $how "$@"; }
items() { head -c 4000 stopped/recording.sums 2>/dev/null | od -An -v -t u8 -w8 | awk '$1 > 0' | wc -l; }

# ---- C3: recordings go on

check 'a recording is made' record -o whole
for signal in INT KILL; do
    rm -rf stopped
    "$kvsim" record $how -o stopped 2>err.log & # the program itself, to be signalled
    pid=$!
    until [ "$(items)" -ge 3 ] || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
    kill -$signal $pid
    wait $pid 2>/dev/null
    code=$?
    some=$(items)
    check "issue 13 C3: a recording stopped by $signal keeps its items ($some of 36)" \
        test "$some" -ge 3 -a "$some" -lt 36 -a ! -e stopped/manifest.json
    [ $signal = KILL ] && continue
    want_code=1 name='issue 13 C3: and says how to go on'
    want="kvsim: record: interrupted; $some of 36 items are kept in stopped, and the same command goes on"
    judge $code
    expect 1 'kvsim: stopped: holds the beginning of another recording: adjoint.draws is 4 there and 2 here; give the command that began it, remove the folder, or choose another' \
        'issue 13 C3: another command into that folder is refused with what differs' \
        record -q -m good.gguf -t samples --stride 4 --keep final,kv,sens --draws 2 -o stopped
    check 'issue 13 C3: the same command goes on' record -o stopped
    check 'issue 13 C3: to the same bytes' diff -r whole stopped
done
check 'issue 13 C3: a killed one goes on too' record -o stopped
check 'issue 13 C3: to the same bytes as well' diff -r whole stopped

tables() { record -t samples --keep final,tables:sym+asym -o "$1"; }
check 'a recording that keeps tables alone is made' tables tables
(ulimit -f 200 && tables cut >out.log 2>&1)
tables cut >out.log 2>&1
check 'issue 13 C3: one that a file size limit stopped goes on, tables and all' diff -r tables cut

# ---- C2: one writer a folder

record -o both 2>first.log &
until [ -e both/recording.sums ]; do sleep 0.02; done
expect 1 'kvsim: both: is being recorded into by another kvsim; wait for it or choose another folder' \
    'issue 13 C2: a second recording into the folder is refused at once' \
    record -q -m good.gguf -t samples --stride 4 -o both
wait $!
check 'issue 13 C2: the first is whole' diff -r whole both

# ---- C1: names that are no UTF-8

name=$(printf 'caf\351.txt')
i=0
while [ $i -lt 40 ]; do i=$((i + 1)); echo 'the hen sat in the inn and the inn sat on the hill'; done >"$name"
check 'issue 13 C1: a path that is no UTF-8 is recorded' \
    "$kvsim" record -q -m good.gguf -t "text:$name,window=64" -n 2 --keep final -o odd
check 'issue 13 C1: and spelled out in the manifest' grep -q 'caf\\\\xE9.txt' odd/manifest.json

# ---- A15: manifests

cp -r whole edited
sed 's/"vocab": [0-9]*/"vocab": 99999/' whole/manifest.json >edited/manifest.json
"$kvsim" verify edited 2>err.log
want_code=1 name='issue 13 A15: an edited manifest is refused'
want=$(sed 's/[0-9a-f]\{16\}/HASH/g' err.log | head -1)
judge 1
check 'issue 13 A15: since a checksum covers it' grep -q 'was edited or damaged: its XXH64 is' err.log
grep -v manifest_xxh64 edited/manifest.json | sed 's/^ ],$/ ],/' | awk '{ l[NR] = $0 }
    END { for (i = 1; i <= NR; i++) { if (i == NR - 1) sub(/,$/, "", l[i]); print l[i] } }' >bare.json
mv bare.json edited/manifest.json
check 'issue 13 A15: without one it opens' "$kvsim" verify edited
"$kvsim" verify edited >out.log
check 'issue 13 A15: and verify says so' grep -q 'note: no checksum covers its manifest' out.log
vocab=$(sed -n 's/.*"vocab": \([0-9]*\).*/\1/p' whole/manifest.json)
says="its manifest says vocab 99999, and the model has $vocab: it was edited or damaged"
expect 1 "kvsim: edited: $says" 'issue 13 A15: verify -m compares it with the model' \
    verify edited -m good.gguf
expect 1 "kvsim: edited: $says" 'issue 13 A15: and so does a replay' \
    replay edited static:bits=4@sym -m good.gguf
check 'issue 13 A15: the true one fits' "$kvsim" verify whole -m good.gguf

# ---- point 5: outcomes run again

sweep() { "$kvsim" sweep -q whole 'static:bits={2,4,8}@{sym,asym}' oracle:bits=4@sym -m good.gguf "$@"; }
check 'a sweep is stored' sweep --db s.db --items 0-7 --fidelity exact,fisher
"$kvsim" verify s.db -m good.gguf >out.log
check 'issue 13 point 5: verify runs 20 outcomes again, to the same bits' \
    grep -q '^20 of 112 outcomes run again (drawn with seed 1): 20 equal bit for bit$' out.log
KVSIM_CPU=base "$kvsim" verify s.db -m good.gguf >out.log
check 'issue 13 point 5: on another processor level within a bound' grep -q 'outcomes run again' out.log
mv whole moved
"$kvsim" verify s.db -m good.gguf >out.log
check 'issue 13 point 5: without its trace it says so' \
    grep -q '^20 not run: no such trace at whole (--trace DIR says where it is)$' out.log
"$kvsim" verify s.db -m good.gguf --trace moved --outcomes 1000 >out.log
check 'issue 13 point 5: --trace says where it is' grep -q '^112 of 112 .* 112 equal bit for bit$' out.log
if command -v python3 >/dev/null; then
    cp s.db lie.db
    python3 -c "import sqlite3
d = sqlite3.connect('lie.db')
d.execute('UPDATE outcome_item SET kl_nats = kl_nats * 1.000001 WHERE kl_nats > 0')
d.commit()"
    check 'issue 13 point 5: a number that was edited is found' \
        sh -c "! '$kvsim' verify lie.db -m good.gguf --trace moved"
else
    skip 'issue 13 point 5: a number that was edited is found' 'no python3'
fi

# ---- A12: one frontier, one name

"$kvsim" frontier --db s.db --tsv --fidelity exact | awk -F '\t' 'NR > 1 && $4 == 1 { print $1 }' | sort >verb
"$kvsim" sql "SELECT spec FROM frontier WHERE fidelity = 'exact'" --db s.db --tsv | sed 1d | sort >view
check 'issue 13 A12: the view of the frontier is what kvsim frontier prints' cmp verb view
check 'issue 13 A12: which is not empty' test -s view
"$kvsim" sql "SELECT spec FROM summary WHERE label = 'static:bits=4@sym' AND fidelity = 'exact'" --db s.db --tsv >found
check 'issue 13 A12: a WHERE on the printed name finds its row' test "$(wc -l <found)" = 2
"$kvsim" show --db s.db --fidelity exact | awk '$1 ~ /@a?sym$/ { print $1 }' | sort >printed
"$kvsim" sql "SELECT label FROM summary WHERE fidelity = 'exact'" --db s.db --tsv | sed 1d | sort >labels
check 'issue 13 A12: labels are the names that show prints' cmp printed labels
finish
