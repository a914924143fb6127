# SPDX-License-Identifier: Apache-2.0
# What reports/generation.md says, made again. Usage, from the repository's root: make.sh STEP... with BUILD, MODEL,
# KVSIM_DATA in the environment; stores go to work/generation. What is there stays: a step that was stopped goes on.
# PROMPTS (100) says how many. Steps:
#   greedy   windows of 64 tokens of WikiText-2, 128 likeliest tokens behind each, the formats of formats.sweep
#   drawn    the same, drawn at temperature 1
#   say      tables of both and the figure
set -eu
kvsim=$BUILD/kvsim to=work/generation text=text:$KVSIM_DATA/wikitext2_test.raw.txt,window=64
loops="SELECT label, own FROM generated_item JOIN generation AS g ON g.id = generation ORDER BY label, key"
# Mean KL of 32 tokens after the other along the reference's own text: does it grow with depth alone?
of() { echo "ROUND(AVG(CASE WHEN k.key / 32 = $1 THEN k.value END), 5) AS $2"; }
quarters="SELECT label, $(of 0 tokens_1_to_32), $(of 1 tokens_33_to_64), $(of 2 tokens_65_to_96), $(of 3 tokens_97_to_128)
    FROM generated_item JOIN generation AS g ON g.id = generation, json_each(forced_kl) AS k GROUP BY 1 ORDER BY 1"
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
            [ -f "$to/$name.db" ] || continue
            awk -F '\t' -f reports/generation/table.awk "$to/$name.tsv" >"$to/$name.md"
            "$kvsim" sql "$loops" --db "$to/$name.db" --tsv | awk -F '\t' -f reports/generation/loops.awk >>"$to/$name.md"
            "$kvsim" sql "$quarters" --db "$to/$name.db" --markdown >>"$to/$name.md"
        done
        generate greedy -o "$to/figure"
        ;;
    *)
        echo "make.sh: no step is called $step" >&2
        exit 2
        ;;
    esac
done
