# SPDX-License-Identifier: Apache-2.0
# One sweep over several processes: shards that are merged, and ranks of an MPI, where one is installed. The
# rows are those of one process, whatever was killed on the way.
# Runs alone: ranks wait for each other on every core, and are killed at work.
repo=$(pwd)
. sim/cli/test/lib/hostile.sh
. sim/cli/test/lib/tap.sh
export kvsim
tiny good

specs='random:bits=2/4/8,seed=1..4+1@sym'
items=36
"$kvsim" record -q -m good.gguf -t samples --stride 4 --keep final -o t || exit 1
sweep() { db=$1 && shift && "$kvsim" sweep -q -j 1 t "$specs" -m good.gguf --db "$db" "$@"; }
rows() { # rows DB: every row of results in key order
    for table in trace item policy_spec run shard outcome_item outcome_choice outcome_share; do
        "$kvsim" sql -q --tsv "SELECT * FROM $table ORDER BY 1, 2, 3, 4" --db "$1" || return 1
    done
}
sweep whole.db || exit 1
rows whole.db >whole.tsv

# ---- shards

for i in 1 2 3; do check "shard $i of 3 is swept" sweep part$i.db --shard $i/3; done
check 'and they are merged' "$kvsim" merge part1.db part2.db part3.db -o merged.db
rows merged.db >merged.tsv
check 'to the rows of the sweep that was not split' cmp whole.tsv merged.tsv
"$kvsim" merge part3.db part1.db -o two.db 2>err.log
check 'a shard that is missing is said' grep -q '^shard 2/3 of items 0-35 is missing: 48 outcomes of 4 runs$' err.log
check 'and merged when it comes' "$kvsim" merge two.db part2.db -o late.db
rows late.db | sort >late.tsv
sort whole.tsv >sorted.tsv
check 'to the same rows' cmp sorted.tsv late.tsv
expect 1 'kvsim: merged.db: is there already, and merge makes a store of its own' 'a store is not merged over' \
    merge part1.db -o merged.db
expect 2 "kvsim: --shard: '4/3' is no shard; I/N is expected, 1/4 for the first of four" 'a shard that is none' \
    sweep t "$specs" -m good.gguf --db x.db --shard 4/3
for i in 1 2 3; do "$kvsim" sweep t static:bits=4@sym -m good.gguf --items 0-1 --db small$i.db --shard $i/3 2>err.log; done
check 'a shard of which no item is says so' grep -q '^done: this shard holds no item; small3.db says so when it is merged$' err.log
check 'and is not missed with it' sh -c "'$kvsim' merge small1.db small2.db small3.db -o small.db 2>&1 | grep -q '^small.db: 2 outcomes' && ! '$kvsim' merge small1.db small2.db small3.db -o again.db 2>&1 | grep missing"
sweep other.db --redraws 1 --seed 1 --items 0-5 || exit 1
check 'items that two stores hold alike are no conflict' "$kvsim" merge part1.db other.db -o both.db

printf 'nothing' >text.db
cp part1.db before.db
hostile_rows 'issue 16, mistakes' <<'ROWS'
2 | usage: kvsim merge A.db B.db | kvsim merge
2 | --out: the store to make is needed | kvsim merge part1.db part2.db
2 | unknown option '--db' | kvsim merge part1.db part2.db --db m.db
2 | unknown option '--shard' | kvsim merge part1.db -o m.db --shard 1/2
1 | nothing.db: no such store | kvsim merge part1.db nothing.db -o m.db
1 | t: a folder | kvsim merge part1.db t -o m.db
1 | text.db: this is not a kvsim store | kvsim merge part1.db text.db -o m.db
1 | part1.db: is there already | kvsim merge part1.db part2.db -o part1.db
1 | nowhere/m.db: cannot be written | kvsim merge part1.db part2.db -o nowhere/m.db
2 | '0/2' is no shard | kvsim sweep t none --db m.db --shard 0/2
2 | '1' is no shard | kvsim sweep t none --db m.db --shard 1
2 | '1-2' is no shard | kvsim sweep t none --db m.db --shard 1-2
2 | '-1/2' is no shard | kvsim sweep t none --db m.db --shard -1/2
2 | '1/2/3' is no shard | kvsim sweep t none --db m.db --shard 1/2/3
2 | 'first' is no shard | kvsim sweep t none --db m.db --shard first
2 | '1/x' is no shard | kvsim sweep t none --db m.db --shard 1/x
2 | unknown option '--shard' | kvsim replay t none -m good.gguf --shard 1/2
2 | --compute: gpu | kvsim sweep t none -m good.gguf --db m.db --compute gpu
1 | none.so: is not there: `make cuda` builds it | KVSIM_CUDA=none.so kvsim sweep t static:bits=4@sym -m good.gguf --db m.db --compute cuda
ROWS
check 'no mistake makes or changes a store' test ! -e m.db.partial -a "$(cksum <part1.db)" = "$(cksum <before.db)"

# ---- ranks

want_code=1 name='a program without the library of ranks says what it lacks'
want="kvsim: $work/none.so: is not there: \`make mpi\` builds it where mpicc is, and \$KVSIM_MPI may name it"
KVSIM_MPI=$work/none.so "$kvsim" sweep -q t "$specs" -m good.gguf --db x.db --mpi 2>err.log
judge $?
if ! command -v mpicc >/dev/null || ! command -v mpirun >/dev/null; then
    skip 'ranks share a sweep' 'no mpicc or mpirun here: libopenmpi-dev, openmpi-bin'
    finish
fi
check 'the library of ranks is built' mpicc -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -I"$repo" -shared -fPIC \
    -o ranks.so "$repo/sim/mpi/ranks.c"
export KVSIM_MPI="$work/ranks.so"
export ASAN_OPTIONS=detect_leaks=0 # an MPI keeps what it took until the end
# Open MPI's words for: as root too, and more ranks than cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
ranks() { mpirun -n "$1" "$kvsim" sweep -j 1 t "$specs" -m good.gguf --db "$2" --mpi; }
check 'three ranks share a sweep' ranks 3 ranks.db
rows ranks.db >ranks.tsv
check 'and make the rows of one process' cmp whole.tsv ranks.tsv
mpirun -n 2 sh -c '[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 0 ] || model=other; '"$kvsim"' sweep -j 1 t none -m ${model:-good}.gguf --db x.db --mpi' \
    >said.log 2>&1
check 'what goes wrong on one rank is said' grep -q '^kvsim: .*other.gguf: .*(rank 1 on ' said.log

stored() { "$kvsim" sql -q --tsv 'SELECT COUNT(*) FROM outcome_item' --db "$1" 2>/dev/null | tail -n 1; }
seeds=40 && [ -z "${KVSIM_TEST_LIGHT:-}" ] || seeds=15
specs="random:bits=2/4/8,seed=1..$seeds+1@sym"
sweep whole.db || exit 1
rows whole.db >whole.tsv
all=$(stored whole.db)
lost=0 killed=0 wanted=${KILLS:-4} && [ -z "${KVSIM_TEST_LIGHT:-}" ] || wanted=2
for turn in $(seq $((5 * wanted))); do # rank 1, rank 0, ...
    [ $killed -lt "$wanted" ] || break
    ranks 2 killed.db >/dev/null 2>&1 &
    launcher=$!
    before=$(stored killed.db)
    for look in $(seq 200); do
        sleep 0.02
        [ "$(stored killed.db)" != "$before" ] && break
        kill -0 $launcher 2>/dev/null || break
    done
    before=$(stored killed.db)
    mpi=$(pgrep -P $launcher mpirun || echo $launcher)
    victim=$(pgrep -P "$mpi" kvsim | sed -n "$((killed % 2 + 1))p")
    [ -n "$victim" ] && kill -KILL "$victim" 2>/dev/null && killed=$((killed + 1))
    wait $launcher
    [ "$(stored killed.db)" -ge "${before:-0}" ] || lost=$((lost + 1))
    [ "$(stored killed.db)" = "$all" ] || continue
    rows killed.db | cmp - whole.tsv || lost=$((lost + 1)) # whole too early: once more from nothing
    rm -f killed.db*
done
check "ranks were killed while they worked ($killed of $wanted)" test $killed = "$wanted"
check 'a rank that is killed takes nothing that was stored with it' test "$lost" = 0
check 'the same command goes on' ranks 2 killed.db
rows killed.db >killed.tsv
check 'to the rows of one process' cmp whole.tsv killed.tsv
finish
