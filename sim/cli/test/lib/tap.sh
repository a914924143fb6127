# SPDX-License-Identifier: Apache-2.0
# What the command-line tests share: a scratch folder, and checks that speak TAP.
#
#   check NAME CODE STDERR COMMAND...   runs it: exit code and the whole of stderr must be these;
#                                       STDERR is a pattern of the shell (*, ?), mostly without any
#   same NAME FILE FILE                 two files are equal
#   skip NAME WHY
build=${BUILD:-build}
kvsim=$build/kvsim
model=${MODEL:-data/SmolLM2-135M-Instruct.Q4_1.gguf}
n_tests=0 n_failed=0
mkdir -p "$build" && tmp=$(mktemp -d "$build/cli-XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT

result() { # TRUE-OR-FALSE NAME
    n_tests=$((n_tests + 1))
    if "$1"; then echo "ok $n_tests - $2"; else n_failed=$((n_failed + 1)); echo "not ok $n_tests - $2"; fi
}

skip() {
    n_tests=$((n_tests + 1))
    echo "ok $n_tests - $1 # SKIP $2"
}

check() {
    name=$1 want_code=$2 want=$3
    shift 3
    "$@" >"$tmp/stdout" 2>"$tmp/stderr"
    code=$?
    said=$(cat "$tmp/stderr")
    good=false
    # shellcheck disable=SC2254
    case $said in $want) [ "$code" = "$want_code" ] && good=true ;; esac
    result $good "$name"
    $good || { echo "# exit code $code, expected $want_code"; echo "# said:     $said"; echo "# expected: $want"; }
}

same() {
    if cmp -s "$2" "$3"; then result true "$1"; else result false "$1"; diff "$2" "$3" | head -n 10 | sed 's/^/# /'; fi
}

# patch FILE BYTE OCTAL...: overwrites bytes in place.
patch() {
    file=$1 at=$2
    shift 2
    # shellcheck disable=SC2059
    printf "$@" | dd of="$file" bs=1 seek="$at" conv=notrunc 2>/dev/null
}

done_testing() {
    echo "1..$n_tests"
    [ "$n_failed" = 0 ]
}
