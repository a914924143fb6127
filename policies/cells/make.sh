# SPDX-License-Identifier: Apache-2.0
# How the weights that travel with kvsim were made, and what reports/cells.md says of them. Needs the benchmark files
# (KVSIM_DATA). Usage, from the repository's root: make.sh STEP... with BUILD, MODEL, KVSIM_DATA and, for a GPU,
# COMPUTE=cuda in the environment; traces, stores and other weights go to work/cells. Steps:
#   train     records 640 HellaSwag, 300 OpenBookQA, 300 ARC-Challenge items and 60 windows of text (161,703 tokens, 9.8 GB,
#             half an hour on 2 busy cores), trains on nine tenths of them (2 minutes) and writes the file to work/cells
#   judged    records the sets that nothing is trained on: other contexts (ctx_a) of HellaSwag, other files, windows of text
#             more than 10,000 tokens away
#   others    weights with other inputs, trained on other kinds, static plans (kvsim tune) and the paper's network
#   longer    trainings of 14, 28, 40 and 56 passes, their sensitivities of 16 draws, over sets that are neither trained on nor
#             judged (*-picked.ids) and over those judged
#   time      uniform storage, K/V pairs and cells on the judged HellaSwag items, priced on a CPU at 2k, 8k and 16k tokens
#   compare   the sweep policies/cells.sweep over the judged sets and cells-parts.sweep over 40 HellaSwag items, their tables, and
#             the figure
set -eu
kvsim=$BUILD/kvsim lists=policies/cells to=work/cells compute="--compute ${COMPUTE:-cpu}"
hellaswag=hellaswag:$KVSIM_DATA/hellaswag_val.jsonl.gz text=text:$KVSIM_DATA/wikitext2_test.raw.txt
mixture="$to/hellaswag $to/openbookqa $to/arc_challenge $to/wikitext"
mkdir -p $to/16

record() { # record NAME TASKS LIST KEEP...: a finished trace stays
    name=$1 tasks=$2 list=$3
    shift 3
    [ -f "$to/$name/manifest.json" ] || "$kvsim" record -q -m "$MODEL" -t "$tasks" --ids "$lists/$list.ids" --keep "$@" $compute -o "$to/$name"
}
record_mixture() { # record_mixture TO ARGUMENTS...
    at=$1
    shift
    record ${at}hellaswag "$hellaswag" hellaswag-train cells "$@"
    record ${at}openbookqa "openbookqa:$KVSIM_DATA/openbookqa_train.jsonl" openbookqa-train cells "$@"
    record ${at}arc_challenge "arc:$KVSIM_DATA/arc_challenge_train.jsonl" arc_challenge-train cells "$@"
    record ${at}wikitext "$text,window=512" wikitext-train cells "$@"
}
record_sets() { # record_sets WHICH KEEP_OF_HELLASWAG
    record hellaswag-$1 "$hellaswag" hellaswag-$1 $2
    record openbookqa-$1 "openbookqa:$KVSIM_DATA/openbookqa_test.jsonl" openbookqa-$1 final
    record arc_easy-$1 "arc:$KVSIM_DATA/arc_easy_test.jsonl" arc_easy-$1 final
    record wikitext_1024-$1 "$text,window=1024" wikitext_1024-$1 final
}
train() { # train NAME ARGUMENTS...: its table goes to NAME.txt
    name=$1
    shift
    [ -f "$to/$name.safetensors" ] || "$kvsim" train cells "$@" -o "$to/$name.safetensors" >"$to/$name.txt"
}

for step in "$@"; do
    case $step in
    train)
        record_mixture ""
        train smollm2-135m-instruct $mixture
        ;;
    judged)
        record_sets judged final,kv,sens
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
        for grain in token:0.03 cell:0.003; do # the paper's network, its labels by damage
            "$kvsim" train mlp $to/plan --labels oracle --bound ${grain#*:} --bits 2,3,4,5,6,8 --format asym:group=32 \
                --grain ${grain%:*} -o $to/mlp-${grain%:*}.safetensors >$to/mlp-${grain%:*}.txt
        done
        ;;
    longer)
        record_mixture 16/ --draws 16
        record_sets judged final,kv,sens
        record_sets picked final
        for passes in 14 28 40 56; do
            train 16/$passes $to/16/hellaswag $to/16/openbookqa $to/16/arc_challenge $to/16/wikitext --passes $passes
        done
        for which in picked judged; do
            for set in hellaswag openbookqa arc_easy wikitext_1024; do
                "$kvsim" sweep $to/$set-$which static:bits=5@asym:group=32 cells:bits=5,hold=matched@asym:group=32 \
                    "cells:bits=5,hold=matched,weights=$to/16/{14,28,40,56}.safetensors@asym:group=32" -m "$MODEL" $compute --db $to/longer.db
            done
        done
        "$kvsim" show --db $to/longer.db
        ;;
    time)
        "$kvsim" sweep $to/hellaswag-judged 'static:bits={2,3,4,5,6,8}@asym:group=32' static:k=5,v=3@asym:group=32 \
            static:k=6,v=4@asym:group=32 'cells:bits={4,5,6}@asym:group=32' -m "$MODEL" $compute --db $to/ms.db
        "$kvsim" report --db $to/ms.db --context 2048,8192,16384 --device xeon-2core-q4-asym -o $to/ms
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
