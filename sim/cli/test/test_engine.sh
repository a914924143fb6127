# SPDX-License-Identifier: Apache-2.0
# --compute cuda with the GPU's own kernels run by one CPU thread: whole passes in every mode it serves come to the
# CPU's divergences, picks, bits and entropies; what it leaves to the CPU is said; rows stand apart in the store.
root=$PWD
. sim/cli/test/lib/tap.sh
tiny good
export KVSIM_CUDA="$build/libkvsim-cuda-emulated.so"
[ -f "$KVSIM_CUDA" ] || { skip 'the engine on a CPU' 'it is not built' && finish; }

cat >specs.sweep <<'END'
none
static:bits=16@sym
static:bits={2,4}@asym:group=32
static:bits=4@kivi:group=4,residual=8,sinks=2
static:bits=4@{rotatekv,turbo,q4_0,zipcache}
static:bits=4@center(asym:group=32):side=pre
random:bits=2/8,by=cell@sym:window=5
sinks:keep=2,window=9@asym:group=32
END
modes='inline prefill prefill1' n_specs=12
# Under a sanitizer each jump between threads of a block costs as much as what they compute.
if [ -n "${KVSIM_TEST_LIGHT:-}" ]; then
    modes=inline n_specs=3
    grep -E 'bits=\{2,4\}|kivi' specs.sweep >few && mv few specs.sweep
fi
# Items and specs of both arithmetics side by side: how many there are, and how many differ by more than codes that rounding noise flips.
differ() {
    "$kvsim" sql --db "$1" --tsv "SELECT COUNT(*), SUM(ABS(a.kl_nats - b.kl_nats) > 1e-6 + 1e-2 * a.kl_nats OR
        a.effective_bits IS NOT b.effective_bits OR ABS(a.entropy_bits - b.entropy_bits) > 1e-3 OR a.pick_acc IS NOT b.pick_acc)
        FROM outcome_item a JOIN run r ON r.id = a.run JOIN run s ON s.spec = r.spec AND s.trace = r.trace AND s.mode = r.mode
        JOIN outcome_item b ON b.run = s.id AND b.item = a.item WHERE r.compute = 'cpu' AND s.compute = 'cuda'" | tail -n 1
}
"$kvsim" record -q -m good.gguf -t samples -n 1 --keep final -o t || exit 1
for mode in $modes; do
    "$kvsim" sweep -q t specs.sweep -m good.gguf --mode $mode --db $mode.db || exit 1
    "$kvsim" sweep -q t specs.sweep -m good.gguf --mode $mode --db $mode.db --compute cuda 2>err.log || exit 1
    check "mode $mode: $n_specs specs come to the CPU's figures" test "$(differ $mode.db)" = "$(printf '%s\t0' $n_specs)"
done
"$kvsim" sweep -q t specs.sweep -m good.gguf --db again.db --compute cuda 2>/dev/null || exit 1
for db in inline again; do
    "$kvsim" sql --db $db.db --tsv "SELECT s.spec, o.* FROM outcome_item o JOIN run r ON r.id = o.run JOIN policy_spec s ON s.id = r.spec
        WHERE r.compute = 'cuda' ORDER BY s.spec" | cut -f 1,3- >$db.rows
done
check 'and to its matches with what greedy decoding writes' test "$("$kvsim" sql --db inline.db --tsv "SELECT COUNT(*) > 3 * $n_specs, SUM(a.greedy IS NULL),
    SUM(a.greedy_ref IS NOT b.greedy_ref) FROM outcome_choice a JOIN run r ON r.id = a.run JOIN run s ON s.spec = r.spec
    JOIN outcome_choice b ON b.run = s.id AND b.item = a.item AND b.choice = a.choice WHERE r.compute = 'cpu' AND s.compute = 'cuda'" |
    tail -n 1)" = "$(printf '1\t0\t0')"
check 'a second run gives the same bits' cmp -s inline.rows again.rows
head -c 3000 "$root/traces/samples/text.txt" >text
"$kvsim" record -q -m good.gguf -t text:text,window=64 -n 1 --keep final -o w || exit 1
for compute in cpu cuda; do "$kvsim" sweep -q w 'static:bits={2,4}@asym:group=32' -m good.gguf --db w.db --compute $compute 2>/dev/null || exit 1; done
check 'windows of text too' test "$(differ w.db)" = "$(printf '2\t0')"
same() { "$kvsim" show --db w.db --tsv | awk -F '\t' 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "same_top") at = i } NR > 1 { print $1, $at }' | sort -u; }
check 'whose likeliest tokens agree' test "$(same | wc -l)" -eq 2
# Policy cells, which decides in the pass; sim/replay/test/test_engine_cells.c compares widths, shapes and settings, under
# sanitizers too.
cells_decide() {
    "$kvsim" record -q -m good.gguf -t samples --stride 40 --keep cells,sens,final -o learn || exit 1
    "$kvsim" train cells learn --passes 5 -o w.safetensors >train.log 2>&1 || exit 1
    cells=cells:bits=5,weights=w.safetensors@asym:group=32
    for trace in t w; do
        for compute in cpu cuda; do "$kvsim" sweep $trace $cells -m good.gguf --db cells.db --compute $compute >$compute.out 2>$compute.log || exit 1; done
        check "cells decides in the pass ($trace)" sh -c '! grep -q "go through the model on this CPU" cuda.log'
    done
    check 'and comes to the figures of this CPU' test "$(differ cells.db)" = "$(printf '2\t0')"
    "$kvsim" replay t "shuffle(cells:bits=5,weights=w.safetensors):within=cell@asym:group=32" -m good.gguf --compute cuda >/dev/null 2>err.log
    check 'inside a wrapper it goes through the CPU, which is said' grep -q 'go through the model on this CPU' err.log
    "$kvsim" replay -q t $cells -m good.gguf --compute cuda --precision bf16 --tsv >bf16 2>/dev/null
    check 'cells in bf16' awk -F '\t' 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "kl_nats") at = i } NR == 2 { exit !($at > 0 && $at < 1) }' bf16
}
[ -n "${KVSIM_TEST_LIGHT:-}" ] || cells_decide
"$kvsim" replay t static:bits=4@sym -m good.gguf --mode requant --compute cuda >/dev/null 2>err.log
check 'what goes through the CPU is said' grep -q 'go through the model on this CPU' err.log
"$kvsim" replay -q t static:bits=4@sym -m good.gguf --compute cuda --precision bf16 --tsv >bf16 2>/dev/null
check 'bf16 is computed' awk -F '\t' 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "kl_nats") at = i } NR == 2 { exit !($at > 0 && $at < 1) }' bf16
"$kvsim" generate -q -m good.gguf -n 2 --tokens 8 'static:bits={2,16}@sym' --compute cuda --db g.db --tsv >g.tsv 2>/dev/null
check 'texts are generated by its products' test "$(column g.tsv compute | sort -u)" = cuda
check 'where 16 bits are the reference' test "$(awk -F '\t' '$NF == "static:bits=16@sym" { print $7 }' g.tsv)" = 0.00000
expect 2 'kvsim: --precision: bf16 goes with --compute cuda, not with cpu' 'bf16 on this CPU' replay -q t none -m good.gguf --precision bf16
expect 2 'kvsim: static:k=4,v=4@sym:group=head,levels=full,order=ggml,scale=fp16,sinks=0,window=0: mode requant of it is not computed in bf16; take --precision f32' \
    'nothing of a bf16 sweep goes through the CPU' replay -q t static:bits=4@sym -m good.gguf --mode requant --compute cuda --precision bf16
export KVSIM_CUDA=nowhere.so
expect 1 'kvsim: nowhere.so: is not there: `make cuda` builds it where nvcc is, and $KVSIM_CUDA may name it' 'a library that is missing' \
    replay -q t static:bits=4@sym -m good.gguf --compute cuda
finish
