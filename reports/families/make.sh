# SPDX-License-Identifier: Apache-2.0
# What reports/families.md is made of: formats, plans and learned cells on SmolLM2, Qwen2.5 and Gemma 3. Usage, from the
# repository's root: make.sh STEP... with BUILD, MODEL (another model lies beside it, `make models`), KVSIM_DATA and, for a
# GPU, COMPUTE=cublas in the environment; FAMILIES names those to do (default: all three); traces and the store go to
# work/families. A recording that is finished stays, and a sweep goes on where it stopped. Steps:
#   record    300 HellaSwag items that are judged (hellaswag.ids) and 160 of other contexts that plans and cells learn from
#             (train.ids), with all that they need
#   learn     plans by layer, KV head, K and V at 4, 5 and 6 allocated bits, widths for every cell
#   sweep     all of them and reports/families.sweep, exact, over the judged items
#   anatomy   what `kvsim anatomy` says of each, from the items that were learned from
#   table     the tables of reports/families.md: divergence, ranks and their agreement, and how far from the other program;
#             and the figure (work/families/families.svg)
set -eu
kvsim=$BUILD/kvsim lists=reports/families to=work/families compute="--compute ${COMPUTE:-f32}"
hellaswag=hellaswag:$KVSIM_DATA/hellaswag_val.jsonl.gz
mkdir -p $to

of() { # of FAMILY: sets file and layers
    case $1 in
    smollm2-135m) file=$MODEL layers=30 ;;
    qwen2.5-coder-0.5b) file=$(dirname "$MODEL")/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf layers=24 ;;
    gemma-3-270m) file=$(dirname "$MODEL")/gemma-3-270m-q4_k_m.gguf layers=18 ;;
    *) echo "make.sh: no family '$1'" >&2 && exit 2 ;;
    esac
}
record() { # record NAME LIST KEEP
    [ -f "$to/$1/manifest.json" ] ||
        "$kvsim" record -m "$file" -t "$hellaswag" --ids "$lists/$2.ids" --keep "$3" $compute -o "$to/$1"
}
ends() { # eight bits for the first and the last two layers, as runtimes ship it
    awk -v n="$layers" 'BEGIN { for (i = 0; i < n; i++) printf "%s%s", i ? "/" : "", (i < 2 || i >= n - 2) ? 8 : 4 }'
}

for step in "$@"; do
    [ "$step" != table ] || {
        "$kvsim" show --db $to/families.db --tsv >$to/rows.tsv
        awk -v figure=$to/figure.tsv -f $lists/table.awk sim/test/reference/families.json $to/rows.tsv
        gnuplot -e "format = 'svg'; name = '$to/families'; data = '$to/figure.tsv'; canvas_x = 960; canvas_y = 440" \
            reports/draw/style.gp $lists/figure.gp
        continue
    }
    for family in ${FAMILIES:-smollm2-135m qwen2.5-coder-0.5b gemma-3-270m}; do
        of "$family"
        case $step in
        record)
            record "$family" hellaswag final
            record "$family-train" train final,kv,sens,cells
            ;;
        learn)
            [ -f "$to/$family.safetensors" ] || "$kvsim" train cells "$to/$family-train" \
                --widths 2,3,4,5,6,8,16 -o "$to/$family.safetensors"
            for bits in 4 5 6; do
                "$kvsim" tune "$to/$family-train" --budget bits=$bits layerwise:by=head@asym:group=32 \
                    --widths 2,3,4,5,6,8,16 --train 0-159 --no-exact --tsv | awk -F '\t' 'NR == 2 { print $1 }'
                echo "cells:bits=$bits,hold=matched,weights=$to/$family.safetensors@asym:group=32"
            done >"$to/$family.sweep"
            echo "layerwise:k=$(ends)@asym:group=32" >>"$to/$family.sweep"
            ;;
        sweep)
            "$kvsim" sweep "$to/$family" reports/families.sweep "$to/$family.sweep" -m "$file" $compute --db $to/families.db
            ;;
        anatomy)
            "$kvsim" anatomy "$to/$family-train" -m "$file" $compute --items 0-63 --check -o "$to/$family.anatomy" \
                >"$to/$family.anatomy.txt"
            ;;
        *) echo "make.sh: no step '$step'" >&2 && exit 2 ;;
        esac
    done
done
