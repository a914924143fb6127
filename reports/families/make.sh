# SPDX-License-Identifier: Apache-2.0
# What reports/families.md is made of: formats, plans and learned cells on SmolLM2, Qwen2.5 and Gemma 3. Usage, from the
# repository's root: make.sh STEP... with BUILD, MODEL (another model lies beside it, `make models`), KVSIM_DATA and, for a
# GPU, COMPUTE=cuda in the environment; FAMILIES names those to do (default: all three); traces and the store go to
# work/families. A recording that is finished stays, and a sweep goes on where it stopped. Steps:
#   record    what is judged: 300 HellaSwag items (hellaswag.ids) and 16 windows of 1,024 tokens of WikiText; what plans learn from:
#             160 items of other contexts (train.ids); what cells learn from: those, 200 more (cells-train.ids, no context that
#             is judged either), 200 OpenBookQA and 200 ARC-Challenge items, 40 windows of 512 tokens
#   learn     plans by layer, KV head, K and V at 5, 6 and 7 allocated bits (4, 5 and 6 of codes), widths for every cell
#   sweep     all of them and reports/families.sweep, exact, over the judged items; plans and cells over the windows
#   fidelity  64 policies (fidelity.sweep), exact and foretold, on the first 128 of the judged items
#   anatomy   what `kvsim anatomy` says of each, from the items that were learned from
#   table     the tables of reports/families.md: divergence, ranks and their agreement, and how far from the other program
set -eu
kvsim=$BUILD/kvsim lists=reports/families cells=policies/cells to=work/families compute="--compute ${COMPUTE:-cpu}"
hellaswag=hellaswag:$KVSIM_DATA/hellaswag_val.jsonl.gz text=text:$KVSIM_DATA/wikitext2_test.raw.txt
mkdir -p $to

of() { # of FAMILY: sets file and layers
    case $1 in
    smollm2-135m) file=$MODEL layers=30 ;;
    qwen2.5-coder-0.5b) file=$(dirname "$MODEL")/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf layers=24 ;;
    gemma-3-270m) file=$(dirname "$MODEL")/gemma-3-270m-q4_k_m.gguf layers=18 ;;
    *) echo "make.sh: no family '$1'" >&2 && exit 2 ;;
    esac
}
record() { # record NAME TASKS IDS KEEP [N]: the first N of them
    [ -f "$to/$1/manifest.json" ] || {
        head -n "${5:-10000}" "$3" >"$to/$1.ids"
        "$kvsim" record -m "$file" -t "$2" --ids "$to/$1.ids" --keep "$4" $compute -o "$to/$1"
    }
}
sweep() { # sweep TRACE STORE SPECS...
    trace=$to/$1 store=$to/$2.db
    shift 2
    "$kvsim" sweep "$trace" "$@" -m "$file" $compute --db "$store"
}
ends() { # eight bits for the first and the last two layers, as runtimes ship it
    awk -v n="$layers" 'BEGIN { for (i = 0; i < n; i++) printf "%s%s", i ? "/" : "", (i < 2 || i >= n - 2) ? 8 : 4 }'
}

for step in "$@"; do
    [ "$step" != table ] || {
        "$kvsim" show --db $to/families.db --tsv >$to/rows.tsv
        awk -f $lists/table.awk sim/test/reference/families.json $to/rows.tsv
        continue
    }
    for family in ${FAMILIES:-smollm2-135m qwen2.5-coder-0.5b gemma-3-270m}; do
        of "$family"
        case $step in
        record)
            record "$family" "$hellaswag" $lists/hellaswag.ids final
            record "$family-text" "$text,window=1024" $cells/wikitext_1024-judged.ids final 16
            record "$family-train" "$hellaswag" $lists/train.ids final,kv,sens,cells
            record "$family-hellaswag" "$hellaswag" $lists/cells-train.ids cells
            record "$family-openbookqa" "openbookqa:$KVSIM_DATA/openbookqa_train.jsonl" $cells/openbookqa-train.ids cells 200
            record "$family-arc" "arc:$KVSIM_DATA/arc_challenge_train.jsonl" $cells/arc_challenge-train.ids cells 200
            record "$family-wikitext" "$text,window=512" $cells/wikitext-train.ids cells 40
            ;;
        learn)
            [ -f "$to/$family.safetensors" ] || "$kvsim" train cells "$to/$family"-train "$to/$family"-hellaswag \
                "$to/$family"-openbookqa "$to/$family"-arc "$to/$family"-wikitext --widths 2,3,4,5,6,8,16 \
                -o "$to/$family.safetensors" >"$to/$family.train.txt"
            for bits in 5 6 7; do
                "$kvsim" tune "$to/$family-train" --budget bits=$bits layerwise:by=head@asym:group=32 \
                    --widths 2,3,4,5,6,8,16 --train 0-159 --no-exact --tsv | awk -F '\t' 'NR == 2 { print $1 }'
                echo "cells:bits=$bits,hold=matched,weights=$to/$family.safetensors@asym:group=32"
            done >"$to/$family.sweep"
            ;;
        sweep)
            sweep "$family" families reports/families.sweep "$to/$family.sweep" "layerwise:k=$(ends)@asym:group=32"
            sweep "$family-text" text 'static:bits={4,5,6}@asym:group=32' "$to/$family.sweep"
            ;;
        fidelity)
            record "$family-fidelity" "$hellaswag" $lists/hellaswag.ids final,kv,q,sens,grad 128
            sweep "$family-fidelity" fidelity $lists/fidelity.sweep
            "$kvsim" fidelity "$to/$family-fidelity" --db $to/fidelity.db -o "$to/$family.fidelity" >"$to/$family.fidelity.txt"
            ;;
        anatomy)
            "$kvsim" anatomy "$to/$family-train" -m "$file" $compute --items 0-63 --check -o "$to/$family.anatomy" \
                >"$to/$family.anatomy.txt"
            ;;
        *) echo "make.sh: no step '$step'" >&2 && exit 2 ;;
        esac
    done
done
