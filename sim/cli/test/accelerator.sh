# SPDX-License-Identifier: Apache-2.0
# --compute cublas with a library that stands in for the GPU: the same divergences up to rounding, rows
# of their own in the store, and refusals.
root=$PWD
. sim/cli/test/lib/tap.sh
tiny good

library() { "${CC:-cc}" -std=c17 -O2 -fPIC -shared "-I$root" "$@" -o loops.so "$root/sim/cli/test/accelerator.c" || exit 1; }
library
export KVSIM_CUBLAS="$work/loops.so"
"$kvsim" record -q -m good.gguf -t samples -n 3 --keep final,kv -o t || exit 1
specs='static:bits={4,8}@sym'
"$kvsim" sweep -q t "$specs" -m good.gguf --db s.db || exit 1
"$kvsim" sweep -q t "$specs" -m good.gguf --db s.db --compute cublas 2>err.log || exit 1
check 'the library held the weights' grep -q '^held [1-9]' err.log
"$kvsim" show --db s.db --tsv >rows.tsv
kl() { awk -F'\t' 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "kl_nats") at = i } NR > 1 { print $1, $at }' rows.tsv | sort; }
check 'rows of both arithmetics stand apart' test "$(kl | wc -l)" -eq 4
check 'their divergences agree' awk '{ if ($1 == last) { seen++; if (($2 - kl) ^ 2 > (0.2 * kl) ^ 2 || kl <= 0) bad = 1 } last = $1; kl = $2 } END { exit bad || seen != 2 }' <<END
$(kl)
END
"$kvsim" record -q -m good.gguf -t samples -n 3 --keep final,kv,sens --compute cublas -o u 2>/dev/null
check 'a trace can be recorded so' "$kvsim" replay -q u static:bits=16@sym -m good.gguf --compute cublas
"$kvsim" sweep -q u "$specs" -m good.gguf --db u.db --compute cublas 2>/dev/null || exit 1
"$kvsim" fidelity u --db u.db --tsv -t policies >fidelity.tsv 2>err.log
check 'predictions are judged by its rows where there are no others' test "$(grep -c '^static' fidelity.tsv)" -eq 2
check 'and that is said' grep -q 'exact rows are of loops' err.log
"$kvsim" sweep -q u static:bits=4@sym -m good.gguf --db u.db || exit 1
"$kvsim" fidelity u --db u.db --tsv -t policies >fidelity.tsv 2>err.log
check 'never by rows of two arithmetics' test "$(grep -c '^static' fidelity.tsv)" -eq 1

refused() { expect "$1" "$2" "$3" replay -q t static:bits=4@sym -m good.gguf --compute "$4"; }
library -DNO_DEVICE
refused 1 "kvsim: $work/loops.so: cannot start: no CUDA-capable device is detected" 'a machine without a GPU' cublas
library -DABI=9
refused 1 "kvsim: $work/loops.so: was not built for accelerator ABI 2" 'a library of another ABI' cublas
refused 2 'kvsim: --compute: tf32: cpu, cublas or cuda is expected' 'another word' tf32
finish
