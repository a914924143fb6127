# SPDX-License-Identifier: Apache-2.0
# Policy cells as a user meets it: trained on a recording, replayed on another, led to a budget, shuffled, predicted
# from recorded features, refused where its weights are another model's.
. sim/cli/test/lib/tap.sh
tiny good other
"$kvsim" record -q -m good.gguf -t samples --stride 12 --keep cells,sens,final -o learn || exit 1
"$kvsim" record -q -m good.gguf -t samples --ids /dev/stdin --keep final -o judge <<E_IDS || exit 1
1
25
49
73
E_IDS
"$kvsim" record -q -m other.gguf -t samples --stride 36 --keep final -o elsewhere || exit 1
"$kvsim" train cells learn --passes 60 -o w.safetensors >train.log 2>&1 || exit 1
spec='weights=w.safetensors@asym:group=32'

bits() { # bits STORE PATTERN: allocated bits of the rows whose spec holds it
    "$kvsim" sql "SELECT printf('%.3f', allocated_bits) FROM frontier WHERE spec LIKE '%$2%'" --db "$1" --tsv | tail -n +2
}
near() { awk -v a="$1" -v b="$2" -v by="$3" 'BEGIN { exit !(a - b <= by && b - a <= by) }'; }

check 'cells replays with its weights' "$kvsim" sweep -q judge "cells:bits=5,$spec" static:bits=4@asym:group=32 -m good.gguf --db s.db
check 'its row says which file, hold and widths' \
    sh -c "'$kvsim' sql 'SELECT spec FROM frontier' --db s.db --tsv | grep -q 'cells:bits=5,digest=[0-9a-f]*,.*hold=run,.*weights=w.safetensors,widths=2/3/4/5/6/8@asym:group=32'"
check 'it takes about the bits asked for' near "$(bits s.db cells:bits=5)" 5 0.4
check 'a matched budget is met over the set' "$kvsim" sweep -q judge "cells:bits=5,hold=matched,$spec" -m good.gguf --db m.db
check 'within a hundredth of a bit' near "$(bits m.db hold=matched)" 5 0.01
"$kvsim" sql 'SELECT spec, kl_nats FROM frontier' --db m.db --tsv >once
"$kvsim" sweep -q judge "cells:bits=5,hold=matched,$spec" -m good.gguf --db m.db
"$kvsim" sql 'SELECT spec, kl_nats FROM frontier' --db m.db --tsv >twice
check 'the same line finds the same scale and adds no row' cmp once twice
check 'a shuffle of it replays' "$kvsim" sweep -q judge "cells:bits=5,hold=none,$spec" "shuffle(cells:bits=5,hold=none,weights=w.safetensors):within=cell@asym:group=32" -m good.gguf --db n.db
check 'and takes as many bits' sh -c "'$kvsim' sql \"SELECT count(DISTINCT printf('%.6f', allocated_bits)) FROM frontier\" --db n.db --tsv | tail -n 1 | grep -qx 1"
says() { "$kvsim" "$@" 2>&1 | tail -n 1 | grep -q 'hold=matched is led to its budget by exact replays'; }
check 'inside a wrapper nothing is matched, which is said' says replay judge \
    "shuffle(cells:bits=5,hold=matched,weights=w.safetensors):within=cell@asym:group=32" -m good.gguf
check 'nor without a model' says replay learn "cells:bits=5,hold=matched,$spec" --fidelity fisher
check 'modes prefill and prefill1 run' "$kvsim" sweep -q judge "cells:bits=5,$spec" -m good.gguf --db p.db --mode prefill,prefill1
check 'a recording with cells answers without the model' "$kvsim" sweep -q learn "cells:bits=5,$spec" --fidelity fisher --db f.db
"$kvsim" record -q -m good.gguf -t samples --stride 72 --keep kv,sens -o plain || exit 1
expect 1 "kvsim: plain: keeps no features of cells, by which policy cells decides without a run; record with --keep cells" \
    'one without is told so' replay plain "cells:bits=5,$spec" --fidelity fisher
check 'issue 14: requant is refused in a sentence' sh -c "'$kvsim' replay judge 'cells:bits=5,$spec' -m good.gguf --mode requant 2>&1 | tail -n 1 | grep -q 'codes a token, once'"
check 'weights of another model are refused by both names' \
    sh -c "'$kvsim' replay elsewhere 'cells:bits=5,$spec' -m other.gguf 2>&1 | tail -n 1 | grep -q 'w.safetensors: holds weights for model .* not for '"
check 'no shipped weights fit a model of this shape' \
    sh -c "'$kvsim' replay judge cells:bits=5@asym:group=32 -m good.gguf 2>&1 | tail -n 1 | grep -q 'no weights for a model of this shape travel with kvsim; train some'"
expect 2 "kvsim: policy cells: bits=9.2 cannot be met: with tags of 0.094 bits a value, these widths take 3.094 to 9.094" \
    'a budget within the widths alone' replay judge "cells:bits=9.2,$spec" -m good.gguf
finish
