# SPDX-License-Identifier: Apache-2.0
# What reports/long.md says, made again. Usage, from the repository's root: make.sh STEP... with BUILD, MODEL, QWEN
# (Qwen2.5-Coder-0.5B), KVSIM_DATA in the environment; recordings and stores go to work/long. What is there stays. Steps:
#   ten     4 windows of 8,192 tokens of WikiText-2, ten formats and policies
#   three   one window of 32,768 tokens, one of 16 positions scored, three formats
#   costs   time of recording and replay beside a plain pass, and memory, by length
set -eu
kvsim=$BUILD/kvsim to=work/long text=text:$KVSIM_DATA/wikitext2_test.raw.txt
mkdir -p $to

record() { # record NAME MODEL TASKS: a finished recording stays
    [ -f "$to/$1/manifest.json" ] || "$kvsim" record -q -m "$2" -t "$3" -n "$4" --keep final -o "$to/$1"
}
say() { # say NAME: its tables
    "$kvsim" show --db "$to/$1.db" --context 2048,4096,8192 --markdown >"$to/$1.md"
    "$kvsim" show --by depth --db "$to/$1.db" --markdown >>"$to/$1.md"
    "$kvsim" report -q --db "$to/$1.db" -o "$to/$1-page"
}

for step in "$@"; do
    case $step in
    ten)
        record 8192 "$MODEL" "$text,window=8192" 4
        "$kvsim" sweep "$to/8192" reports/long/ten.sweep -m "$MODEL" --db "$to/8192.db"
        say 8192
        ;;
    three)
        record 32768 "$QWEN" "$text,window=32768,score=1/16" 1
        "$kvsim" sweep "$to/32768" reports/long/three.sweep -m "$QWEN" --db "$to/32768.db" -j 1
        say 32768
        ;;
    costs)
        BENCH_TOKENS=2048,4096,8192 "$BUILD/sim/replay/bench/bench_long"
        MODEL=$QWEN BENCH_TOKENS=8192,16384,32768 "$BUILD/sim/replay/bench/bench_long"
        ;;
    *)
        echo "make.sh: no step is called $step" >&2
        exit 2
        ;;
    esac
done
