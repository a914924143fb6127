# SPDX-License-Identifier: Apache-2.0
# Makes what reports/needle.md tabulates: about an hour on two cores that do nothing else.
#     make all && KVSIM_DATA=... sh reports/needle/make.sh [record|sweep|show|figure]...
# LENGTHS, DEPTHS, N: of the items. A sweep that was stopped goes on.
set -eu
: "${BUILD:=build}" "${MODEL:=data/SmolLM2-135M-Instruct.Q4_1.gguf}" "${KVSIM_DATA:?names the folder of wikitext2_test.raw.txt}"
: "${LENGTHS:=512/1024/2048}" "${DEPTHS:=0/50/100}" "${N:=12}" "${WORK:=work/needle}"
kvsim=$BUILD/kvsim
mkdir -p "$WORK"
[ $# -gt 0 ] || set -- record sweep show figure
for what in "$@"; do
    case $what in
    record)
        "$kvsim" record -m "$MODEL" -t "needle:$KVSIM_DATA/wikitext2_test.raw.txt,lengths=$LENGTHS,depths=$DEPTHS,n=$N,seed=1" \
            --keep final -o "$WORK/needle.trace"
        ;;
    sweep) "$kvsim" sweep "$WORK/needle.trace" reports/needle/eight.sweep -m "$MODEL" --db "$WORK/needle.db" ;;
    show) "$kvsim" show --by place --db "$WORK/needle.db" ;;
    figure)
        "$kvsim" report --db "$WORK/needle.db" -o "$WORK/page"
        cp "$WORK/page/places.svg" reports/figures/needle.svg
        ;;
    *) echo "no such part: $what" >&2 && exit 2 ;;
    esac
done
