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

# ---- generated text: rows of a step go there, and bits of none depend on the others

generate() { # generate DB SPEC...
    db=$1
    shift
    "$kvsim" generate -q -j 2 -m good.gguf -n 6 --tokens 24 --db "$db" --tsv "$@" 2>/dev/null
}
sequences() { # sequences DB COMPUTE: all that was generated so
    "$kvsim" sql "SELECT p.spec, i.* FROM generated_item AS i JOIN generation AS g ON g.id = i.generation JOIN policy_spec AS p
        ON p.id = g.spec WHERE g.compute = '$2' ORDER BY p.spec, i.key" --db "$1" --tsv | cut -f 1,3-
}
few='static:bits={2,16}@sym' many='static:bits={2,3,4,5,8,16}@sym'
generate g.db $many >/dev/null && generate g.db $many --compute cublas >g.tsv || exit 1
check 'generated rows of both arithmetics stand apart' test "$(column g.tsv compute | sort | uniq -c | tr -d ' \n')" = 6cpu6loops
check 'as many on each side' test "$(sequences g.db loops | wc -l)" = "$(sequences g.db cpu | wc -l)"
check 'whose sums are not the same' test "$(sequences g.db loops)" != "$(sequences g.db cpu)"
check '16 bits give the reference there, too' test "$("$kvsim" sql "SELECT SUM(parted) + MAX(own_kl GLOB '*[1-9]*') AS n FROM
    generated_item AS i JOIN generation AS g ON g.id = i.generation WHERE g.label LIKE '%bits=16%' AND g.compute = 'loops'" \
    --db g.db --tsv | tail -n 1)" = 0
generate few.db $few --compute cublas >/dev/null || exit 1
check 'specs give in small company what they give in large' test "$(sequences few.db loops)" = \
    "$(sequences g.db loops | grep -e '=2,.*@' -e '=16,.*@' -e '^spec')"
generate few.db $few --compute cublas >/dev/null
check 'what was generated there is not generated again' test "$(sequences few.db loops | wc -l)" = 13

# ---- refusals

refused() { expect "$1" "$2" "$3" replay -q t static:bits=4@sym -m good.gguf --compute "$4"; }
library -DNO_DEVICE
refused 1 "kvsim: $work/loops.so: cannot start: no CUDA-capable device is detected" 'a machine without a GPU' cublas
library -DABI=9
refused 1 "kvsim: $work/loops.so: was not built for accelerator ABI 2" 'a library of another ABI' cublas
refused 2 'kvsim: --compute: tf32: cpu, cublas or cuda is expected' 'another word' tf32
finish
