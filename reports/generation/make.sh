# SPDX-License-Identifier: Apache-2.0
# What reports/generation.md says, made again. Usage, from the repository's root: make.sh STEP... with BUILD, MODEL,
# KVSIM_DATA in the environment; stores go to work/generation. What is there stays: a step that was stopped goes on.
# PROMPTS (100) says how many. Steps:
#   greedy   windows of 64 tokens of WikiText-2, 128 likeliest tokens behind each, the formats of formats.sweep
#   drawn    the same, drawn at temperature 1
#   say      tables of both and the figure
set -eu
kvsim=$BUILD/kvsim to=work/generation text=text:$KVSIM_DATA/wikitext2_test.raw.txt,window=64
mkdir -p $to

generate() { # generate NAME OPTION...
    name=$1
    shift
    "$kvsim" generate -m "$MODEL" -t "$text" -n "${PROMPTS:-100}" --tokens 128 --mode prefill \
        reports/generation/formats.sweep --db "$to/$name.db" "$@" --tsv >"$to/$name.tsv"
}

for step in "$@"; do
    case $step in
    greedy) generate greedy ;;
    drawn) generate drawn --temperature 1 ;;
    say)
        for name in greedy drawn; do
            [ ! -f "$to/$name.db" ] || awk -F '\t' -f reports/generation/table.awk "$to/$name.tsv" >"$to/$name.md"
        done
        generate greedy -o "$to/figure"
        ;;
    *)
        echo "make.sh: no step is called $step" >&2
        exit 2
        ;;
    esac
done
