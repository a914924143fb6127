# SPDX-License-Identifier: Apache-2.0
# Makes what reports/needle.md tabulates, and the rest of its grid: about two hours on two cores that do nothing else.
#     make all && KVSIM_DATA=... sh reports/needle/make.sh [record|sweep|show|figure]...
# LENGTHS, PAIRS, DEPTHS, N: of the items. A sweep that was stopped goes on; ITEMS=A-B runs a part of it.
set -eu
: "${BUILD:=build}" "${MODEL:=data/SmolLM2-135M-Instruct.Q4_1.gguf}" "${KVSIM_DATA:?names the folder of wikitext2_test.raw.txt}"
: "${LENGTHS:=512/1024/2048}" "${PAIRS:=8/32}" "${DEPTHS:=0/50/100}" "${N:=12}" "${WORK:=work/needle}" "${ITEMS:=}"
kvsim=$BUILD/kvsim
mkdir -p "$WORK"
[ $# -gt 0 ] || set -- record sweep show figure
record() { # record NAME TASKS: once
    [ -f "$WORK/$1.trace/manifest.json" ] || "$kvsim" record -m "$MODEL" -t "$2,depths=$DEPTHS,n=$N,seed=1" --keep final -o "$WORK/$1.trace"
}
for what in "$@"; do
    case $what in
    record)
        record needle "needle:$KVSIM_DATA/wikitext2_test.raw.txt,lengths=$LENGTHS"
        record recall "recall,pairs=$PAIRS"
        ;;
    sweep)
        for task in needle recall; do
            # shellcheck disable=SC2086
            "$kvsim" sweep "$WORK/$task.trace" reports/needle/eight.sweep -m "$MODEL" --db "$WORK/$task.db" ${ITEMS:+--items $ITEMS}
        done
        ;;
    show) for task in needle recall; do "$kvsim" show --by place --db "$WORK/$task.db"; done ;;
    figure)
        for task in needle recall; do
            "$kvsim" report --db "$WORK/$task.db" -o "$WORK/$task"
            cp "$WORK/$task/places.svg" "reports/figures/$task.svg"
        done
        ;;
    *) echo "no such part: $what" >&2 && exit 2 ;;
    esac
done
