# SPDX-License-Identifier: Apache-2.0
# How the weights that travel with kvsim were made, and what reports/cells.md says of them. Needs the benchmark files
# (KVSIM_DATA). Usage, from the repository's root: make.sh STEP... with BUILD, MODEL, KVSIM_DATA and, for a GPU,
# COMPUTE=cuda in the environment; traces, stores and other weights go to work/cells. Steps:
#   train     records 640 HellaSwag, 300 OpenBookQA, 300 ARC-Challenge items and 60 windows of text (161,703 tokens, 9.8 GB,
#             half an hour on 2 busy cores), trains on nine tenths of them (2 minutes) and writes the file to work/cells
#   judged    records the sets that nothing is trained on: other contexts (ctx_a) of HellaSwag, other files, windows of text
#             more than 10,000 tokens away
#   others    weights with other inputs, trained on other kinds, and static plans (kvsim tune)
#   compare   the sweep policies/cells.sweep over the judged sets and cells-parts.sweep over 40 HellaSwag items, their tables, and
#             the figure
set -eu
kvsim=$BUILD/kvsim lists=policies/cells to=work/cells compute="--compute ${COMPUTE:-cpu}"
hellaswag=hellaswag:$KVSIM_DATA/hellaswag_val.jsonl.gz text=text:$KVSIM_DATA/wikitext2_test.raw.txt
mixture="$to/hellaswag $to/openbookqa $to/arc_challenge $to/wikitext"
mkdir -p $to

record() { # record NAME TASKS LIST KEEP: a finished trace stays
    [ -f "$to/$1/manifest.json" ] || "$kvsim" record -q -m "$MODEL" -t "$2" --ids "$lists/$3.ids" --keep "$4" $compute -o "$to/$1"
}
train() { # train NAME ARGUMENTS...: its table goes to NAME.txt
    name=$1
    shift
    [ -f "$to/$name.safetensors" ] || "$kvsim" train cells "$@" -o "$to/$name.safetensors" >"$to/$name.txt"
}

for step in "$@"; do
    case $step in
    train)
        record hellaswag "$hellaswag" hellaswag-train cells
        record openbookqa "openbookqa:$KVSIM_DATA/openbookqa_train.jsonl" openbookqa-train cells
        record arc_challenge "arc:$KVSIM_DATA/arc_challenge_train.jsonl" arc_challenge-train cells
        record wikitext "$text,window=512" wikitext-train cells
        train smollm2-135m-instruct $mixture
        ;;
    judged)
        record hellaswag-judged "$hellaswag" hellaswag-judged final,kv,sens
        record openbookqa-judged "openbookqa:$KVSIM_DATA/openbookqa_test.jsonl" openbookqa-judged final
        record arc_easy-judged "arc:$KVSIM_DATA/arc_easy_test.jsonl" arc_easy-judged final
        record wikitext_1024-judged "$text,window=1024" wikitext_1024-judged final
        record wikitext_2048-judged "$text,window=2048" wikitext_2048-judged final
        ;;
    others)
        train without-hellaswag $to/openbookqa $to/arc_challenge $to/wikitext
        train choices $to/hellaswag $to/openbookqa $to/arc_challenge
        record wikitext_2048 "$text,window=2048" wikitext_2048-train cells
        train text-512 $to/wikitext
        train text-2048 $to/wikitext_2048
        for features in paper attention place; do train $features $mixture --features $features; done
        train linear $mixture --net 0
        record plan "$hellaswag" plan-train kv,sens
        for bits in 4 5 6; do
            "$kvsim" tune $to/plan --budget bits=$bits layerwise:by=head@asym:group=32 --widths 2,3,4,5,6,8 --train 0-159 \
                --no-exact --tsv | awk -F '\t' 'NR > 1 { print $1 }'
        done >$to/plans.sweep
        ;;
    compare)
        for set in hellaswag openbookqa arc_easy wikitext_1024; do
            "$kvsim" sweep $to/$set-judged $to/plans.sweep policies/cells.sweep -m "$MODEL" $compute --db $to/cells.db
        done
        "$kvsim" sweep $to/hellaswag-judged policies/cells-parts.sweep -m "$MODEL" $compute --db $to/parts.db --items 0-39
        "$kvsim" sweep $to/wikitext_2048-judged static:bits='{4,5}'@asym:group=32 cells:bits='{5,6}'@asym:group=32 \
            'cells:bits=5@hadamard(sym)' "cells:bits=5,weights=$to/text-512.safetensors@asym:group=32" \
            "cells:bits=5,weights=$to/text-2048.safetensors@asym:group=32" -m "$MODEL" $compute --db $to/cells.db
        "$kvsim" sweep $to/hellaswag-judged "cells:bits=5,weights=$to/without-hellaswag.safetensors@asym:group=32" \
            -m "$MODEL" $compute --db $to/cells.db
        "$kvsim" sweep $to/wikitext_1024-judged "cells:bits=5,weights=$to/choices.safetensors@asym:group=32" \
            "cells:bits=5,weights=$to/text-512.safetensors@asym:group=32" -m "$MODEL" $compute --db $to/cells.db
        for with in choices text-512; do
            "$kvsim" diff --db $to/cells.db "cells:bits=5,weights=$to/$with.safetensors@asym:group=32" cells:bits=5@asym:group=32
        done
        "$kvsim" report --db $to/cells.db -o $to/report
        "$kvsim" show --db $to/cells.db
        "$kvsim" show --db $to/parts.db
        ;;
    *) echo "make.sh: no step '$step'" >&2 && exit 2 ;;
    esac
done
