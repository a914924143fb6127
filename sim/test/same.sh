# SPDX-License-Identifier: Apache-2.0
# Shows that a change moved code and nothing else: two builds do the same work on the samples with one seed, and what
# they print, draw and record must be the same bytes, but for the commit and the paths.
#
#   same.sh [OLD [NEW]]     commits; default: e74282f, before the move into the house, and 1fa9d7f0, after it.
#
# MODEL in the environment names the weights. Everything lies under BUILD/same (default build/same); what an earlier
# run built there is built no more. Ends in "N equal, N different"; 0 = nothing differs.
set -u
old=${1:-e74282f} new=${2:-1fa9d7f0}
root=$(pwd) dir=$(pwd)/${BUILD:-build}/same
model=$(cd "$(dirname "$MODEL")" && pwd)/$(basename "$MODEL")
mkdir -p "$dir"

# build COMMIT: prints the path of its program; no commit: the program that make built.
build() {
    [ -n "$1" ] || { echo "$root/${BUILD:-build}/kvsim" && return; }
    tree=$dir/tree-$(git rev-parse --short=12 "$1^{commit}") || exit 1
    if [ ! -x "$tree/build/kvsim" ]; then
        mkdir -p "$tree"
        git archive "$1" | tar -x -C "$tree" || exit 1
        make -s -j2 -C "$tree" all COMMIT="$(git rev-parse --short=12 "$1^{commit}")" >&2 || exit 1
    fi
    echo "$tree/build/kvsim"
}

sweeps='static:bits={2,4,8,16}@sym static:k={3,4},v={3,4}@asym:group=32 static@q4_0
    threshold:feature=mean,bits=2/4/8/16@sym shuffle(threshold:feature=mean,bits=2/4/8/16):within=item@sym
    oracle:bits=4.25,grain=cell,widths=2/4/8/16@sym static:bits=2@hadamard(asym:group=32) random:bits=2/4/8@sym'

# measured: steps of a made machine, 1 ms and some ns a value, with a ripple.
measured() {
    awk 'BEGIN { print "context,mix,step_ms,weights,threads"
        for (w = 2; w <= 16; w *= 2) for (t = 64; t <= 8192; t *= 2)
            printf "%d,%d,%.4f,f32,1\n", t, w, (1 + t * 11520 * (0.2 + 0.05 * w) * 1e-6) * (1 + 0.01 * sin(t + w)) }'
}

# work PROGRAM FOLDER: everything that is compared, in the folder. Short options alone: long ones have changed names.
work() {
    kvsim=$1
    rm -rf "$2" && mkdir -p "$2" && cd "$2" || exit 1
    "$kvsim" record -q -m "$model" -t samples -n 12 --keep final,kv,q,hidden,sens,grad --draws 2 -o s.trace
    # shellcheck disable=SC2086
    {
        "$kvsim" sweep -q s.trace $sweeps -m "$model" --db s.db
        "$kvsim" sweep -q s.trace 'static:bits={2,4}@sym' -m "$model" --mode prefill --db s.db
        "$kvsim" sweep -q s.trace 'static:bits={2,4}@sym' -m "$model" --redraws 2 --items 0-5 --db s.db
        "$kvsim" sweep -q s.trace 'static:bits={2,4,8}@sym' --fidelity fisher --db s.db
        "$kvsim" replay -q s.trace 'static:bits={2,4}@sym' -m "$model" --items 0-3 --tsv
        "$kvsim" replay -q s.trace 'static:bits={2,4}@sym' --fidelity fisher,attention --tsv
    } >replay.tsv
    "$kvsim" show --db s.db --context 128,2048 --layers --tsv >show.tsv
    "$kvsim" show --db s.db --context 128,2048 >show.txt
    "$kvsim" show --db s.db --json >show.json
    "$kvsim" frontier --db s.db --value kl --tsv >frontier_kl.tsv
    "$kvsim" frontier --db s.db --tsv >frontier_acc.tsv
    "$kvsim" frontier --db s.db --value kl --cost ms >frontier_ms.txt
    "$kvsim" outcomes static:bits=4@sym --db s.db --fidelity exact --mode inline --tsv >outcomes.tsv
    "$kvsim" diff static:bits=4@sym static@q4_0 --db s.db --fidelity exact --mode inline --tsv >diff.tsv
    "$kvsim" diff static:bits=4@sym static@q4_0 --db s.db --fidelity exact --mode inline >diff.txt
    "$kvsim" attribute --db s.db --only 'static:*' --tsv >attribute.tsv
    "$kvsim" attribute --db s.db >attribute.txt
    "$kvsim" verdict --db s.db --tsv >verdict.tsv
    "$kvsim" verdict --db s.db >verdict.txt
    "$kvsim" sql 'SELECT * FROM frontier' --db s.db --tsv >sql.tsv
    "$kvsim" report -q --db s.db --context 128,2048 -m "$model" -o report
    "$kvsim" fidelity s.trace --db s.db -o fidelity >fidelity.txt
    "$kvsim" atlas s.trace -o atlas >atlas.txt
    "$kvsim" additivity s.trace -m "$model" --items 0-1 -o additivity >additivity.txt
    "$kvsim" tune s.trace static@asym:group=32 layerwise:by=head@asym:group=32 -b bits=5 -m "$model" --tsv >tune.tsv
    "$kvsim" headroom s.trace -b 4 --train 0-5 --items 6-9 -m "$model" --db h.db -o headroom >headroom.txt
    "$kvsim" quant sym q4_0 -t s.trace -o quant --tsv >quant.tsv
    "$kvsim" quant sym asym:group=32 q4_0 -g --tsv >gaussian.tsv
    "$kvsim" train mlp s.trace -o controller.safetensors >train.txt
    "$kvsim" devices >devices.txt
    "$kvsim" what-if 16 8 k8v4 2=0.5/8=0.5 --tsv >what-if.tsv
    "$kvsim" what-if --db s.db >what-if.txt
    measured >runs.csv
    "$kvsim" calibrate --runs runs.csv --shape 135m --device made --out made.json --figures device >calibrate.txt
    cd "$root" || exit 1
}

# plain FOLDER FILE: the file without what may differ: commits, and where the programs lie; of a drawing, hundredths of
# a pixel, which follow from how many digits of an axis a script spells.
plain() {
    sed -E "s#$dir/##g; s#$root/##g; s#[0-9a-f]{12}#COMMIT#g" "$1/$2" |
        case $2 in *.svg) sed -E 's#([0-9])\.[0-9]+#\1#g' ;; *) cat ;; esac
}

before=$(build "$old") && after=$(build "$new") || exit 1
work "$before" "$dir/old" 2>"$dir/old.log"
work "$after" "$dir/new" 2>"$dir/new.log"
equal=0 different=0
for file in $( (cd "$dir/old" && find . -type f; cd "$dir/new" && find . -type f) | sed 's#^\./##' | sort -u); do
    # Scripts of gnuplot are laid out anew: what they draw is compared.
    case $file in *.db | *.db-wal | *.db-shm | *.png | *.gp) continue ;; esac
    if [ ! -f "$dir/new/$file" ] || [ ! -f "$dir/old/$file" ]; then
        echo "only one has $file"
        different=$((different + 1))
    elif [ ! -s "$dir/old/$file" ]; then
        echo "empty: $file" && different=$((different + 1))
    elif cmp -s "$dir/old/$file" "$dir/new/$file"; then
        equal=$((equal + 1))
    elif plain "$dir/old" "$file" >"$dir/a" && plain "$dir/new" "$file" >"$dir/b" && cmp -s "$dir/a" "$dir/b"; then
        equal=$((equal + 1))
    else
        echo "different: $file" && diff "$dir/a" "$dir/b" | head -n 6 | cut -c 1-200 | sed 's/^/    /'
        different=$((different + 1))
    fi
done
echo "$equal equal, $different different"
[ "$different" = 0 ]
