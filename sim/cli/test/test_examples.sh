# SPDX-License-Identifier: Apache-2.0
# Every example that help prints runs, in the order of help, in a folder that holds what a clean clone does: a
# tiny model stands in the place of the fetched one.
. sim/cli/test/lib/tap.sh
mkdir data work
model=$("$kvsim" help record | grep -o 'data/[^ ]*\.gguf')
"$build/sim/cli/test/make_gguf" good "$model" || exit 1
PATH=$build:$PATH
unset KVSIM_MODEL
"$kvsim" help | awk '/^  [a-z][a-z-]*  / { print $1 }' >verbs.txt
while read -r verb <&3; do
    "$kvsim" help "$verb" | sed -n '/^example:$/{n;s/^  //;p;}' >example.sh
    # Steps under a sanitizer measure nothing; devices.sh takes more of them.
    case $verb${KVSIM_TEST_LIGHT:+ light} in 'bench light') sed -i 's/$/ --rounds 1 --steps 1/' example.sh ;; esac
    case $verb$(command -v gnuplot) in
    report | doctor) skip "the example of $verb" 'gnuplot is not installed' ;;
    *) check "the example of $verb: $(cat example.sh)" sh -eu example.sh ;;
    esac
done 3<verbs.txt
finish
