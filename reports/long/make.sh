# SPDX-License-Identifier: Apache-2.0
# What reports/long.md says, made again. Usage, from the repository's root: make.sh STEP... with BUILD, MODEL, QWEN
# (Qwen2.5-Coder-0.5B), KVSIM_DATA and, for a GPU, COMPUTE=cuda in the environment; recordings and stores go to work/long.
# What is there stays. Steps:
#   ten      4 windows of 8,192 tokens of WikiText-2 (windows.ids: over 10,000 tokens from any that weights learned from), ten formats
#            and policies
#   trained  weights of `cells` that learned from windows of 8,192 tokens instead of 512 (after `policies/cells/make.sh train
#            judged`), over the same windows, those of 1,024 tokens and HellaSwag
#   three    one window of 32,768 tokens, one of 16 positions scored, three formats
#   deep     ten formats over that window, on a GPU
#   costs    time of recording and replay beside a plain pass, and memory, by length
set -eu
kvsim=$BUILD/kvsim to=work/long text=text:$KVSIM_DATA/wikitext2_test.raw.txt compute="--compute ${COMPUTE:-cpu}"
cells=work/cells deep=work/long/deep.safetensors
mkdir -p $to

record() { # record NAME MODEL TASKS KEEP WHICH...: a finished recording stays
    name=$1 model=$2 tasks=$3 keep=$4
    shift 4
    [ -f "$to/$name/manifest.json" ] || "$kvsim" record -q -m "$model" -t "$tasks" "$@" --keep "$keep" $compute -o "$to/$name"
}
sweep() { # sweep TRACE STORE MODEL SPECS...
    trace=$1 store=$2 model=$3
    shift 3
    "$kvsim" sweep "$trace" "$@" -m "$model" $compute --db "$to/$store.db"
}
say() { # say NAME: its tables
    "$kvsim" show --db "$to/$1.db" --context 2048,4096,8192 --markdown >"$to/$1.md"
    "$kvsim" show --by depth --db "$to/$1.db" --markdown >>"$to/$1.md"
    "$kvsim" report -q --db "$to/$1.db" -o "$to/$1-page"
}

for step in "$@"; do
    case $step in
    ten)
        record 8192 "$MODEL" "$text,window=8192" final --ids reports/long/windows.ids
        sweep $to/8192 8192 "$MODEL" reports/long/ten.sweep
        say 8192
        ;;
    trained)
        record 8192-train "$MODEL" "$text,window=8192" cells --ids reports/long/windows-train.ids
        [ -f $deep ] || "$kvsim" train cells $cells/hellaswag $cells/openbookqa $cells/arc_challenge $to/8192-train -o $deep >$to/deep.txt
        sweep $to/8192 8192 "$MODEL" "cells:bits=5,weights=$deep@asym:group=32"
        for set in hellaswag wikitext_1024; do
            sweep $cells/$set-judged trained "$MODEL" 'static:bits={4,5}@asym:group=32' cells:bits=5@asym:group=32 \
                "cells:bits=5,weights=$deep@asym:group=32"
        done
        say 8192
        "$kvsim" show --db $to/trained.db
        ;;
    three | deep)
        record 32768 "$QWEN" "$text,window=32768,score=1/16" final -n 1
        sweep $to/32768 $step "$QWEN" reports/long/$step.sweep
        say $step
        ;;
    costs)
        BENCH_TOKENS=2048,4096,8192 "$BUILD/sim/replay/bench/bench_long"
        MODEL=$QWEN BENCH_TOKENS=8192,16384,32768 BENCH_THREADS=2 "$BUILD/sim/replay/bench/bench_long"
        ;;
    *)
        echo "make.sh: no step is called $step" >&2
        exit 2
        ;;
    esac
done
