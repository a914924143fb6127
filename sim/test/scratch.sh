# SPDX-License-Identifier: Apache-2.0
# CONTRIBUTING.md tried: what it tells how to add is added to a copy of the house, each by a patch of scratch/ that
# touches the files it says and no other, builds without a warning, does its work, and leaves the plan as it is. Speaks TAP.
#
#     BUILD=build sh sim/test/scratch.sh          a minute; begins with the objects of the build
root=$PWD house_build=${BUILD:-build}
. sim/cli/test/lib/tap.sh
made=$build
copy_house "$root" || { echo 'not ok - not a git checkout' && exit 1; }
git -c user.name=scratch -c user.email=scratch@example commit -qm 'the house'
echo /check.log >>.git/info/exclude
find build -name '*.d' -exec sed -i "s#^$house_build/#build/#" {} +
commit=$(cat build/commit 2>/dev/null || echo unknown)
kvsim=$work/house/build/kvsim
make_house() { ${MAKE:-make} -s -j2 BUILD=build COMMIT="$commit" "$@"; }
"$made/sim/cli/test/make_gguf" good "$work/good.gguf" || exit 1

# add NAME 'FILES': puts the house in order, applies the patch and builds. FILES: what it touches, a line a file:
# its mark (A: new, M: changed), its path, and for a changed one lines added and taken away.
add() {
    git reset -q --hard && git clean -fdq
    rm -rf "$work/samples.trace"
    check "$1: the patch applies" git apply "$root/sim/test/scratch/$1.patch"
    git add -AN
    touched=$(git diff --name-status | while read -r mark file; do
        [ "$mark" = A ] && echo "A $file" && continue
        git diff --numstat -- "$file" | awk -v mark="$mark" '{ print mark, $3, "+" $1, "-" $2 }'
    done)
    [ "$touched" = "$2" ]
    report $? "$1: it touches what CONTRIBUTING.md says" || echo "$touched" | sed 's/^/# /'
    check "$1: it builds without a warning" make_house all
}
# The tests that watch over its kind, the pages that the program writes, and the plan.
watched() { # watched NAME TEST...
    kind=$1
    shift
    for test; do
        check "$kind: $test passes" sh -c "${MAKE:-make} -s BUILD=build COMMIT=$commit build/$test && build/$test"
    done
    check "$kind: make commands writes its pages anew" make_house commands
    git add -AN
    check "$kind: lint finds nothing" env BUILD=build LINT=structure sh sim/test/lint.sh
}
recorded() { "$kvsim" record -q -m "$work/good.gguf" -t samples -n 2 --keep final,kv -o "$work/samples.trace"; }
says() { # says NAME TEXT COMMAND...: the command ends well, and what it prints holds the text
    name=$1 text=$2
    shift 2
    "$@" >"$work/said" 2>&1 && grep -q -e "$text" "$work/said"
    report $? "$name" || sed 's/^/# /' "$work/said"
}

add policy 'A policies/alternate.c
M policies/policies.def +1 -0'
says 'policy: it is described' 'even positions wide, odd ones narrow' "$kvsim" describe alternate
check 'policy: the samples are recorded' recorded
says 'policy: it is replayed' 'alternate' "$kvsim" replay -q "$work/samples.trace" alternate:wide=8,narrow=4@sym -m "$work/good.gguf" --tsv
watched policy policies/test/test_causality

add format 'M sim/quant/formats.def +1 -0
A sim/quant/thirds.c'
says 'format: it is described' 'a sign and one of two sizes' "$kvsim" describe thirds
# 10 heads of 1.5 and -0.5: the largest and a third of it, so that they come back unchanged.
for i in $(seq 320); do printf '\0\0\300\077\0\0\0\277'; done >"$work/heads.f32"
check 'format: what it stores comes back' sh -c \
    "'$kvsim' code thirds --bits 2 --round-trip <'$work/heads.f32' | cmp - '$work/heads.f32'"
check 'format: a recording is coded by it' recorded
says 'format: and replayed' 'thirds' "$kvsim" replay -q "$work/samples.trace" static:bits=2@thirds -m "$work/good.gguf" --tsv
watched format sim/quant/test/test_formats sim/quant/test/test_levels
says 'format: and dumped' '^ *0 ' "$kvsim" dump "$work/samples.trace" static:bits=2@thirds --item 0
check 'format: its bits are drawn' grep -q '^## thirds' sim/test/conformance/layouts.md
check 'format: a row of sim/quant/README.md tells of it' grep -q '^| `thirds` | a sign and one of two sizes' sim/quant/README.md

add tensor-type "M sim/model/weight_types.c +$(grep -c '^+[^+]\|^+$' "$root/sim/test/scratch/tensor-type.patch") -1"
cp "$root/sim/test/scratch/make_q8_1.c" build/make_q8_1.c
check 'tensor-type: a file that holds it is made' sh -c \
    "${CC:-cc} -std=c17 -D_GNU_SOURCE -I. build/make_q8_1.c build/libkvsim.a $(sed -n 's/^LDLIBS := //p' Makefile) -o build/make_q8_1 && build/make_q8_1 '$work/q8_1.gguf'"
check 'tensor-type: it was refused before' sh -c \
    "'$made/kvsim' verify '$work/q8_1.gguf' 2>&1 | cat >'$work/said' && grep -q 'has type Q8_1, which is not read' '$work/said'"
says 'tensor-type: it opens' 'a whole model' "$kvsim" verify "$work/q8_1.gguf"
check 'tensor-type: and its model is recorded' "$kvsim" record -q -m "$work/q8_1.gguf" -t samples -n 2 --keep final -o "$work/q8_1.trace"
watched tensor-type sim/model/test/test_gguf sim/model/test/test_huggingface

add runtime "A sim/runtimes/lmdeploy.c
M sim/runtimes/own.h +3 -0
M sim/runtimes/runtimes.c +5 -0"
says 'runtime: a plan leaves for it' '^lmdeploy serve api_server MODEL --quant-policy 4$' "$kvsim" export static:bits=3@asym --to lmdeploy --shape 135m
echo 'lmdeploy serve api_server m --quant-policy 8' >"$work/plan.sh"
says 'runtime: and comes back' '^static:k=8,v=8@asym:' "$kvsim" import "$work/plan.sh" --shape 135m
watched runtime sim/runtimes/test/test_runtimes

add device 'A sim/cost/devices/scratch.json'
says 'device: what-if prices on it' '^scratch	500	8	' "$kvsim" what-if 8 --context 500 --device scratch --tsv
watched device sim/cost/test/test_latency

add figure 'M reports/draw/device.c +1 -0
A reports/draw/device_share.gp'
awk 'BEGIN { print "context,mix,step_ms,weights,threads"
    for (w = 4; w <= 16; w *= 2) for (t = 64; t <= 4096; t *= 8) printf "%d,%d,%.4f,f32,1\n", t, w, 1 + t * w * 1e-4 }' >"$work/runs.csv"
if command -v gnuplot >/dev/null; then
    check 'figure: calibrate draws it' sh -c \
        "'$kvsim' calibrate -q --runs '$work/runs.csv' --shape 135m --device made --out '$work/made.json' --figures '$work/figures' &&
         grep -q 'beyond the shortest step' '$work/figures/made_share.svg'"
else
    skip 'figure: calibrate draws it' 'gnuplot is not installed'
fi
watched figure

add command 'A sim/cli/cmd_count.c
M sim/cli/commands.def +1 -0'
says 'command: help lists it' '^  count  *says how many items' "$kvsim" help
check 'command: a recording to count' recorded
says 'command: it runs' '^2 items, [0-9]* tokens$' "$kvsim" count "$work/samples.trace"
watched command
check 'command: a section of sim/cli/commands.md tells of it' grep -q '^### .*count' sim/cli/commands.md
finish
