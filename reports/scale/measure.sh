# SPDX-License-Identifier: Apache-2.0
# Measures what reports/scale.md tabulates, on a machine at rest: about 12 minutes on two cores for all of it.
#     make all mpi build/sim/model/bench/bench_blas build/sim/replay/bench/bench_replay build/sim/replay/bench/bench_scale build/sim/cli/test/make_gguf
#     MODEL=... KVSIM_DATA=... [LLAMA=.../llama-perplexity] sh reports/scale/measure.sh [blas|replay|scale|ranks|kills|llama]...
# and on a machine with a GPU, after `make cuda`, about 8 minutes on an H200 with 16 cores: ... measure.sh gpu gpu_cells
# ITEMS (60): of the sweeps by ranks and of the comparison. BENCH_ITEMS: of bench_replay (200), bench_scale (400).
# GPU_ITEMS (1000 2500 5000 10042): the first so many of HellaSwag, of the sweeps on a GPU. CELLS_ITEMS (1000) are drawn;
# CELLS_JUDGED (40) of them go through this CPU too.
set -eu
: "${BUILD:=build}" "${MODEL:=data/SmolLM2-135M-Instruct.Q4_1.gguf}" "${KVSIM_DATA:?names the folder of hellaswag_val.jsonl.gz}"
: "${ITEMS:=60}" "${LLAMA:=}"
export MODEL KVSIM_DATA
# Open MPI's words for: as root too, and as many ranks as are asked for.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
kvsim=$BUILD/kvsim
tasks=$KVSIM_DATA/hellaswag_val.jsonl.gz
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- blas replay scale ranks kills llama
trace() { # trace N: records N items, once
    [ -f "$work/t$1/manifest.json" ] || "$kvsim" record -q -m "$MODEL" -t "hellaswag:$tasks" -n "$1" --keep final -o "$work/t$1"
}
now() { date +%s.%N; }
cpu_s() { # cpu_s COMMAND...: user and system seconds of it
    ("$@" >"$work/out.log" 2>&1 || { cat "$work/out.log" >&2 && exit 1; }
        times) | awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, "m"); s += 60 * t[1] + t[2] } print s }'
}
rows() { # rows DB: every row of results in key order
    for table in trace item policy_spec run shard outcome_item outcome_choice outcome_share; do
        "$kvsim" sql -q --tsv "SELECT * FROM $table ORDER BY 1, 2, 3, 4" --db "$1"
    done
}
stored() { "$kvsim" sql -q --tsv 'SELECT COUNT(*) FROM outcome_item' --db "$1" 2>/dev/null | tail -n 1; }

blas() { "$BUILD/sim/model/bench/bench_blas"; }
replay() { "$BUILD/sim/replay/bench/bench_replay"; }
scale() { "$BUILD/sim/replay/bench/bench_scale"; }

specs='static:bits={4,8}@sym'
ranks() { # the wall clock of a sweep from start to rows stored, the model's loading included
    trace "$ITEMS"
    for turn in 1 2; do
        for n in 1 2; do
            rm -f "$work"/r$n.db*
            start=$(now)
            mpirun -n $n "$kvsim" sweep -q -j 1 "$work/t$ITEMS" "$specs" -m "$MODEL" --db "$work/r$n.db" --mpi
            echo "$n $(now) $start" >>"$work/ranks.txt"
        done
    done
    rows "$work/r1.db" >"$work/r1.tsv"
    rows "$work/r2.db" >"$work/r2.tsv"
    awk '{ s = $2 - $3; if (!($1 in best) || s < best[$1]) best[$1] = s }
        END { printf "ranks  wall_s  (-j 1, better of 2)\n    1  %6.1f\n    2  %6.1f  %.2f times as fast (at least 1.9 is asked)\n",
              best[1], best[2], best[1] / best[2] }' "$work/ranks.txt"
    cmp "$work/r1.tsv" "$work/r2.tsv" && echo "rows of 2 ranks: those of one, byte for byte ($(stored "$work/r2.db") outcomes)"
}

kills() { # 20 deaths, every other one rank 0's, of ranks that share a sweep of a tiny model
    KILLS=20 sh sim/cli/test/test_many.sh >"$work/kills.log" || { cat "$work/kills.log" && return 1; }
    sed -n '/killed/,/one process$/p' "$work/kills.log"
}

# Wall clock from start to rows stored, the model's loading included. Items grow longer along the file, so tokens count.
gpu() {
    eight='static:bits={4,8}@sym static:bits={3,4,5}@asym:group=32 static@{q4_0,q5_0,q8_0}'
    [ -x "$BUILD/kvsim-cuda-limits" ] && "$BUILD/kvsim-cuda-limits" "$BUILD/libkvsim-cublas.so"
    most=0
    for n in ${GPU_ITEMS:-1000 2500 5000 10042}; do most=$n; done
    gzip -dc "$tasks" | head -n "$most" | sed 's/.*"ind": *\([0-9]*\).*/\1/' >"$work/gpu.ids"
    "$kvsim" record -q -m "$MODEL" -t "hellaswag:$tasks" --ids "$work/gpu.ids" --keep final --compute cuda -o "$work/gpu"
    echo 'GPUs  items  tokens   first_s  second_s  s_a_policy  us_a_token_and_policy  same_rows'
    many=$(nvidia-smi -L | wc -l)
    [ "$many" -lt 2 ] || gpu_sweeps "$many" "$most"
    [ ! -f "$work/g2.tsv" ] || mv "$work/g2.tsv" "$work/many.tsv"
    for n in ${GPU_ITEMS:-1000 2500 5000 10042}; do
        CUDA_VISIBLE_DEVICES=0 gpu_sweeps 1 "$n"
    done
    [ ! -f "$work/many.tsv" ] || { cmp "$work/many.tsv" "$work/g2.tsv" && echo "rows of $many GPUs: those of one, byte for byte"; }
}
gpu_sweeps() { # gpu_sweeps GPUS ITEMS: the same sweep twice
    for turn in 1 2; do
        rm -f "$work"/g$turn.db*
        start=$(now)
        # shellcheck disable=SC2086 # eight words
        "$kvsim" sweep -q "$work/gpu" $eight -m "$MODEL" --items "0-$(($2 - 1))" --compute cuda --db "$work/g$turn.db"
        echo "$start $(now)" >"$work/g$turn.time"
        rows "$work/g$turn.db" >"$work/g$turn.tsv"
    done
    same=no && cmp -s "$work/g1.tsv" "$work/g2.tsv" && same=yes
    tokens=$("$kvsim" sql -q --tsv "SELECT SUM(n_tokens) FROM item WHERE item < $2" --db "$work/g1.db" | tail -n 1)
    cat "$work/g1.time" "$work/g2.time" | awk -v gpus="$1" -v n="$2" -v tokens="$tokens" -v same=$same '{ s[NR] = $2 - $1 }
        END { printf "%4d  %5d  %7d  %7.1f  %8.1f  %10.2f  %21.2f  %s\n", gpus, n, tokens, s[1], s[2], s[2] / 8, s[2] / 8 / tokens * 1e6, same }'
}

# Policy cells, which decides in the pass, beside a static width: wall clock from start to rows stored, and what this CPU makes of it.
gpu_cells() {
    n=${CELLS_ITEMS:-1000} judged=${CELLS_JUDGED:-40} format=asym:group=32
    "$kvsim" record -q -m "$MODEL" -t "hellaswag:$tasks" -n "$n" --keep final --compute cuda -o "$work/cells"
    for spec in "static:bits=4@$format" "cells:bits=5@$format" "cells:bits=5,hold=hard,features=exact@$format"; do
        for turn in 1 2; do
            rm -f "$work"/c$turn.db*
            start=$(now)
            "$kvsim" sweep -q "$work/cells" "$spec" -m "$MODEL" --compute cuda --db "$work/c$turn.db"
            echo "$start $(now)" >"$work/c$turn.time"
            rows "$work/c$turn.db" >"$work/c$turn.tsv"
        done
        same=other && cmp -s "$work/c1.tsv" "$work/c2.tsv" && same='the same'
        awk -v spec="$spec" -v same="$same" '{ s = $2 - $1 } END { printf "%-50s %6.1f s, the second of two; %s rows\n", spec, s, same }' "$work/c2.time"
        "$kvsim" sweep -q "$work/cells" "$spec" -m "$MODEL" --items "0-$((judged - 1))" --db "$work/c2.db"
        "$kvsim" sql -q --db "$work/c2.db" "SELECT COUNT(*) items, AVG(a.kl_nats) cpu_nats, AVG(b.kl_nats) gpu_nats,
            AVG(b.kl_nats - a.kl_nats) / sqrt((AVG((b.kl_nats - a.kl_nats) * (b.kl_nats - a.kl_nats)) - AVG(b.kl_nats - a.kl_nats) *
            AVG(b.kl_nats - a.kl_nats)) / COUNT(*)) standard_errors_off, AVG(b.effective_bits - a.effective_bits) more_bits
            FROM outcome_item a JOIN run r ON r.id = a.run JOIN run s ON s.spec = r.spec AND s.trace = r.trace AND s.mode = r.mode
            JOIN outcome_item b ON b.run = s.id AND b.item = a.item WHERE r.compute = 'cpu' AND s.compute = 'cuda'"
    done
}

# HellaSwag as llama.cpp's perplexity tool takes it: six lines an item, of the items that were recorded.
llama_file() {
    "$kvsim" sql -q --tsv 'SELECT id FROM item ORDER BY item' --db "$1" | tail -n +2 >"$work/ids"
    python3 - "$tasks" "$work/ids" <<'PY'
import gzip, json, sys
wanted = {line.strip() for line in open(sys.argv[2])}
for line in gzip.open(sys.argv[1], 'rt'):
    item = json.loads(line)
    if str(item['ind']) in wanted:
        print(item['activity_label'] + ': ' + item['ctx'], item['label'], *item['endings'], sep='\n')
PY
}
llama() {
    [ -x "$LLAMA" ] || { echo "llama.cpp: LLAMA names no llama-perplexity" && return; }
    trace "$ITEMS"
    four='static@{q4_0,q8_0,q5_0,q4_1}'
    ours=$(cpu_s "$kvsim" sweep -q -j 1 "$work/t$ITEMS" "$four" -m "$MODEL" --db "$work/four.db")
    llama_file "$work/four.db" >"$work/hellaswag.txt"
    theirs=$(cpu_s "$LLAMA" -m "$MODEL" --hellaswag --hellaswag-tasks "$ITEMS" -f "$work/hellaswag.txt" \
        -ctk q4_0 -ctv q4_0 -fa on -t 1 -tb 1)
    grep -E "^ *$ITEMS[[:space:]]" "$work/out.log" | tail -n 1 || true
    awk -v a="$ours" -v b="$theirs" -v n="$ITEMS" 'BEGIN {
        printf "CPU seconds an item and policy, %d items, one thread, loading included\n", n
        printf "kvsim, 4 specs     %.3f\nllama.cpp, q4_0    %.3f\nshare              %.2f  (at most .5 is asked)\n", a / n / 4, b / n, a / 4 / b }'
}

echo "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1), $(nproc) cores; load before: $(cut -d ' ' -f 1 /proc/loadavg)"
for part in "$@"; do
    start=$(now)
    printf '\n== %s\n' "$part"
    $part
    awk -v a="$start" -v b="$(now)" 'BEGIN { printf "(%.0f s)\n", b - a }'
done
