# SPDX-License-Identifier: Apache-2.0
# kvsim train cells: what it prints and writes, the same whatever -j, and which recordings and options it refuses.
. sim/cli/test/lib/tap.sh
tiny good other

keep() { # keep MODEL TRACE ITEMS OPTIONS...
    model=$1 out=$2 some=$3
    shift 3
    "$kvsim" record -q -m "$model.gguf" -t samples -n "$some" -o "$out" "$@" || exit 1
}
keep good a.trace 12 --keep cells
keep good b.trace 14 --keep cells
keep good sym.trace 2 --keep cells --cells-format sym
keep good plain.trace 2 --keep final,kv
keep other other.trace 2 --keep cells

# ---- what comes of it

"$kvsim" train cells a.trace -q --tsv --passes 3 -j 1 -o one.safetensors --items-out items.tsv >one.tsv || exit 1
"$kvsim" train cells a.trace -q --tsv --passes 3 -j 3 -o three.safetensors >three.tsv || exit 1
check 'the same weights whatever -j' cmp one.safetensors three.safetensors
check 'and the same table' cmp one.tsv three.tsv
check 'a line says what each group is worth' test "$(cut -f 1 one.tsv | paste -sd, -)" = \
    'asked,all,without attention,without probe,place alone'
check 'every item is told, trained on or held out' test "$(cut -f 4 items.tsv | sort | uniq -c | awk '{print $2}' | paste -sd, -)" = 'held,part,trained'
check 'each once' test "$(wc -l <items.tsv)" = 13
"$kvsim" train cells a.trace -q --passes 1 -o ./one.safetensors >text.log || exit 1
check 'the last line is the spec' test "$(tail -n 1 text.log)" = \
    'cells:weights=./one.safetensors@asym:group=32,order=ggml,scale=fp16,sinks=0,window=0'
check 'the line before tells the file and its size' grep -qx \
    "./one.safetensors: $(wc -c <one.safetensors) bytes, digest [0-9a-f]\{16\}" text.log
check 'the file says the command' grep -aqF '"kvsim train cells a.trace --passes 1"' one.safetensors
check 'two recordings mix' "$kvsim" train cells a.trace b.trace -q --passes 1 -o mix.safetensors
check 'and are both named' grep -aqE 'trace [0-9a-f]{16} task .*; .* trace [0-9a-f]{16}' mix.safetensors
for features in place paper token/attention probe,place paper,token,attention,probe; do
    for grain in cell kv layer token; do
        check "features $features, grain $grain" "$kvsim" train cells a.trace -q --passes 1 --net 4 \
            --features $features --grain $grain --widths 2,4,8 -o "x.safetensors"
    done
done
check 'place alone' "$kvsim" train cells a.trace -q --passes 1 --features place -o place.safetensors
check 'has no net' grep -aqE '"net": ?"0"' place.safetensors
check 'and no weights by feature' sh -c '! grep -aq linear place.safetensors'
check 'without a net' "$kvsim" train cells a.trace -q --passes 1 --net 0 -o linear.safetensors
check 'there is none in the file' sh -c '! grep -aq net.0.weight linear.safetensors'

# ---- what is refused

expect 1 'kvsim: plain.trace: holds no sensitivities by cell; kvsim record --keep cells does' \
    'a recording without cells' train cells plain.trace -o x.safetensors
expect 1 'kvsim: other.trace: is of model HASH, a.trace of HASH' 'recordings of two models' \
    train cells a.trace other.trace -o x.safetensors
expect 1 'kvsim: sym.trace: has cells of format sym:group=head,levels=full,order=ggml,scale=fp16,sinks=0,window=0, a.trace of asym:group=32,order=ggml,scale=fp16,sinks=0,window=0' \
    'recordings with errors of two formats' train cells a.trace sym.trace -o x.safetensors
expect 2 'kvsim: a.trace: is the same recording as a.trace' 'a recording twice' \
    train cells a.trace a.trace -o x.safetensors
expect 2 'kvsim: train: --features attention,size: a list of place, paper, token, attention and probe is expected' \
    'a group that is none' train cells a.trace --features attention,size -o x.safetensors
expect 2 'kvsim: --widths: format asym does not offer 9 bits' 'a width that the format lacks' \
    train cells a.trace --widths 2/9 -o x.safetensors
expect 2 'kvsim: --widths: widths must rise' 'widths that fall' train cells a.trace --widths 8/2 -o x.safetensors
expect 2 'kvsim: train: --widths 2/x: at most 12 whole numbers from 1 to 16 are expected' 'a width that is no number' \
    train cells a.trace --widths 2/x -o x.safetensors
expect 2 'kvsim: --grain: head: cell, kv, layer or token is expected' 'a grain that is none' \
    train cells a.trace --grain head -o x.safetensors
expect 2 'kvsim: train: --alpha is an option of mlp, not of cells' "the other kind's option" \
    train cells a.trace --alpha 2 -o x.safetensors
expect 2 'kvsim: train: --net is an option of cells, not of mlp' 'and the other way round' \
    train mlp a.trace --net 4 -o x.safetensors
expect 2 "kvsim: --labels: labels by quartile are a token's; grain kv needs oracle" 'a grain that labels do not have' \
    train mlp a.trace --grain kv -o x.safetensors
check 'weights are read again, their spread measured on other recordings' "$kvsim" train cells b.trace -q --again one.safetensors -o x.safetensors
"$kvsim" record -q -m good.gguf -t samples --stride 24 --keep final -o judge || exit 1
check 'and the policies take them at another grain, and frozen' "$kvsim" replay -q judge 'cells:bits=5,grain=kv,weights=x.safetensors@asym:group=32' \
    'frozen:bits=5,weights=x.safetensors@asym:group=32' -m good.gguf
expect 2 "kvsim: train: 'oracle': mlp and cells are what can be trained" 'what cannot be trained' train oracle a.trace
expect 2 'kvsim: train: mlp is trained on one trace' 'mlp on two traces' train mlp a.trace b.trace
expect 1 'kvsim: nowhere/x.safetensors: cannot be written: No such file or directory' 'a file in no folder' \
    train cells a.trace -o nowhere/x.safetensors
finish
