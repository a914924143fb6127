# SPDX-License-Identifier: Apache-2.0
# A sweep that is stopped midway, by the user or by a full disk, keeps what was finished; the same command
# then goes on to the tables of a sweep that was never stopped.
. sim/cli/test/lib/tap.sh
tiny good

# Blocks of 512 bytes that hold the empty store and about half of the outcomes, by the log beside the store, which
# has a copy of every page that a commit writes: 205 kB when empty, 420 kB with 144 outcomes, over 1.6 MB with 864.
items=72 seeds=12 blocks=1200
[ -z "${KVSIM_TEST_LIGHT:-}" ] || items=36 seeds=4 blocks=610
specs="random:bits=2/4/8/16,seed=1..$seeds+1@sym"
"$kvsim" record -q -m good.gguf -t samples --stride $((144 / items)) --keep final -o t || exit 1
sweep() { "$kvsim" sweep -q -j "$1" t "$specs" -m good.gguf --db "$2"; }
tables() { # tables DB: everything that a store says of its results
    "$kvsim" show --db "$1" --tsv &&
        for seed in 1 $((seeds / 2 + 1)) $seeds; do "$kvsim" outcomes "random:bits=2/4/8/16,seed=$seed@sym" --db "$1" --tsv; done
}
stored() { "$kvsim" show --db "$1" --tsv | awk -F '\t' 'NR > 1 { n += $4 } END { print n + 0 }'; }

check 'a sweep is stored' sweep 2 whole.db
tables whole.db >whole.tsv
all=$(stored whole.db)
check 'with an outcome of every spec and item' test "$all" = $((seeds * items))
check 'the same sweep again adds nothing' sweep 2 whole.db
tables whole.db >again.tsv
check 'and changes nothing' cmp whole.tsv again.tsv

# ---- Ctrl-C, once something is stored

"$kvsim" sweep -q -j 1 t "$specs" -m good.gguf --db stopped.db 2>err.log &
pid=$!
until "$kvsim" show --db stopped.db >/dev/null 2>&1; do
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
done
kill -INT $pid
wait $pid
code=$?
want_code=1 name='a sweep that was interrupted says how to go on'
want='kvsim: sweep: interrupted; what was finished is in stopped.db, and the same command goes on'
judge $code
some=$(stored stopped.db)
check "it has stored a part ($some of $all outcomes)" test "$some" -gt 0 -a "$some" -lt "$all"
check 'the same command goes on' sweep 2 stopped.db
tables stopped.db >stopped.tsv
check 'to the tables of a sweep that was never stopped' cmp whole.tsv stopped.tsv

# ---- a full disk, midway

name='a sweep that fills the disk says so'
want='kvsim: full.db: could not store outcomes: the file size limit of this process was reached; what was stored before is safe'
(ulimit -f $blocks && sweep 1 full.db 2>err.log)
judge $?
some=$(stored full.db)
check "it has stored a part ($some of $all outcomes)" test "$some" -gt 0 -a "$some" -lt "$all"
check 'the same command goes on where there is room' sweep 2 full.db
tables full.db >full.tsv
check 'to the same tables' cmp whole.tsv full.tsv

name='a recording that fills the disk says so'
want=$("$kvsim" record -m good.gguf -t samples --keep final,kv -o sized 2>/dev/null
    echo "kvsim: big/shard-00000.safetensors: cannot be grown to $(($(wc -c <sized/shard-00000.safetensors))) bytes: File too large")
(ulimit -f 1200 && "$kvsim" record -q -m good.gguf -t samples --keep final,kv -o big 2>err.log)
judge $?
check 'and leaves no half a trace' sh -c '[ -z "$(ls big)" ]'

# ---- other ways through the same work

sweep 1 one.db && tables one.db >one.tsv
check 'one job makes the same tables as two' cmp whole.tsv one.tsv
for part in 25-$((items - 1)) 0-9 10-24; do
    "$kvsim" sweep -q t "$specs" -m good.gguf --db parts.db --items $part || exit 1
done
tables parts.db >parts.tsv
check 'items swept part by part make the same tables' cmp whole.tsv parts.tsv
sweep 1 both.db & sweep 1 both.db
wait $!
check 'two sweeps at once into one store' test $? = 0
tables both.db >both.tsv
check 'make the same tables' cmp whole.tsv both.tsv

# ---- open and closed feedback, prefill and requant: runs of their own

spec=threshold:feature=entropy,bits=2/3/4/8@sym
for feedback in open closed; do
    "$kvsim" sweep -q t $spec -m good.gguf --db fed.db --items 0-5 --self exact --feedback $feedback || exit 1
done
"$kvsim" sweep -q t static:bits=3@sym:window=4 -m good.gguf --db fed.db --items 0-5 --mode prefill,requant || exit 1
check 'a spec with closed feedback is a run of its own' test "$(stored fed.db)" = 24
"$kvsim" show --db fed.db --json | grep -o '"variant": *"feedback=closed"' >found.log
check 'and says so' test "$(wc -l <found.log)" = 1
kl() { "$kvsim" diff "$@" --db fed.db --tsv | awk -F '\t' '$1 == "kl_nats" { print ($2 > 0 && $3 > 0 && $2 != $3) }'; }
check 'diff pairs it with the same spec with open feedback' test "$(kl $spec $spec --feedback open,closed)" = 1
check 'and one mode with another' \
    test "$(kl static:bits=3@sym:window=4 static:bits=3@sym:window=4 --mode prefill,requant)" = 1
finish
