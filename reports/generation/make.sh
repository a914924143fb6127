# SPDX-License-Identifier: Apache-2.0
# What reports/generation.md says, made again. Usage, from the repository's root: make.sh STEP... with BUILD, MODEL,
# KVSIM_DATA in the environment; stores go to work/generation. What is there stays: a step that was stopped goes on.
# COMPUTE (cpu) says what does the products, JOBS (all processors) how many prompts are worked on at once.
# PROMPTS (100) and PROBLEMS (200) say how many, WINDOW (128) how many tokens a prompt has. Steps:
#   greedy   windows of WikiText-2, 128 likeliest tokens behind each, the formats of formats.sweep
#   drawn    the same, drawn at temperature 1
#   say      tables of both and the figure
#   gsm8k    problems of GSM8K with 5 examples, at most 256 tokens, by QWEN (Qwen2.5-Coder-0.5B): gsm8k.sweep
set -eu
kvsim=$BUILD/kvsim to=work/generation text=text:$KVSIM_DATA/wikitext2_test.raw.txt,window=${WINDOW:-128}
gsm8k=gsm8k:$KVSIM_DATA/gsm8k_test.jsonl.gz,shots=5,from=$KVSIM_DATA/gsm8k_train.jsonl.gz
how="--compute ${COMPUTE:-cpu} -j ${JOBS:-$(nproc)}"
# The KL of both paths at the positions that both have.
kl() { echo "(SELECT SUM(k.value) FROM json_each($1_kl) AS k WHERE k.key < json_array_length($2_kl))"; }
loops="SELECT label, own, reference, $(kl own forced) AS own_kl, $(kl forced own) AS forced_kl
    FROM generated_item JOIN generation AS g ON g.id = generation ORDER BY label, key"
# Mean KL of 32 tokens after the other along a path, forced or own: does it grow with depth alone?
of() { echo "ROUND(AVG(CASE WHEN k.key / 32 = $1 THEN k.value END), 5) AS $2"; }
quarters() { # quarters PATH
    echo "SELECT label, '$1' AS path, $(of 0 tokens_1_to_32), $(of 1 tokens_33_to_64), $(of 2 tokens_65_to_96), $(of 3 tokens_97_to_128)
        FROM generated_item JOIN generation AS g ON g.id = generation, json_each($1_kl) AS k GROUP BY 1 ORDER BY 1"
}
lengths="SELECT label, compute, COUNT(*) AS problems, ROUND(AVG(n_prompt)) AS prompt_tokens, ROUND(AVG(json_array_length(own))) AS
    tokens, SUM(json_array_length(own) = tokens) AS cut, SUM(broken) AS broken
    FROM generated_item JOIN generation AS g ON g.id = generation GROUP BY 1, 2 ORDER BY 1, 2"
# Sums of a prompt over the first and the last 32 of 128 tokens, on both paths.
ends() { echo "SUM(CASE WHEN o.key $1 THEN o.value END), SUM(CASE WHEN o.key $1 THEN f.value END)"; }
growth="SELECT label, $(ends '< 32'), $(ends '>= 96') FROM generated_item AS i JOIN generation AS g ON g.id = generation,
    json_each(own_kl) AS o JOIN json_each(forced_kl) AS f ON f.key = o.key GROUP BY generation, i.key ORDER BY label, i.key"
mkdir -p $to

generate() { # generate NAME OPTION...
    name=$1
    shift
    "$kvsim" generate -m "$MODEL" -t "$text" -n "${PROMPTS:-100}" --tokens 128 --mode prefill $how \
        reports/generation/formats.sweep --db "$to/$name.db" "$@" --tsv >"$to/$name.tsv"
}
answer() { # answer TABLE
    "$kvsim" generate -m "$QWEN" -t "$gsm8k" -n "${PROBLEMS:-200}" --tokens 256 --mode prefill $how \
        reports/generation/gsm8k.sweep --db $to/gsm8k.db --table "$1" --tsv
}

for step in "$@"; do
    case $step in
    greedy) generate greedy ;;
    drawn) generate drawn --temperature 1 ;;
    say)
        for name in greedy drawn; do
            [ -f "$to/$name.db" ] || continue
            awk -F '\t' -v tokens=128 -f reports/generation/table.awk "$to/$name.tsv" >"$to/$name.md"
            "$kvsim" sql "$loops" --db "$to/$name.db" --tsv | awk -F '\t' -f reports/generation/loops.awk >>"$to/$name.md"
            "$kvsim" sql "$growth" --db "$to/$name.db" --tsv | awk -F '\t' -f reports/generation/growth.awk >>"$to/$name.md"
            "$kvsim" sql "$(quarters forced)" --db "$to/$name.db" --markdown >>"$to/$name.md"
            "$kvsim" sql "$(quarters own)" --db "$to/$name.db" --markdown >>"$to/$name.md"
        done
        "$kvsim" report -q --db $to/greedy.db --format svg -o $to/figure
        ;;
    gsm8k)
        answer answers >$to/gsm8k-answers.tsv
        answer sequences >$to/gsm8k.tsv
        {
            awk -F '\t' -f reports/generation/answers.awk $to/gsm8k-answers.tsv
            "$kvsim" sql "$lengths" --db $to/gsm8k.db --markdown
            awk -F '\t' -v tokens=256 -f reports/generation/table.awk $to/gsm8k.tsv
            "$kvsim" sql "$loops" --db $to/gsm8k.db --tsv | awk -F '\t' -f reports/generation/loops.awk
        } | tee $to/gsm8k.md
        ;;
    *)
        echo "make.sh: no step is called $step" >&2
        exit 2
        ;;
    esac
done
