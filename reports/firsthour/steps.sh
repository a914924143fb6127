# SPDX-License-Identifier: Apache-2.0
# What the first hours share: a folder, the program, and steps that say how many seconds they took. Source from the repository's root.
#
#     sh reports/firsthour/engineer.sh FOLDER      BUILD, MODEL: as in the Makefile
#
#     step 'what it does' COMMAND...               ends the script where the command fails; its talk is shown only then
#     show 'what it does' COMMAND...               the same, and what it prints is the answer that was asked for
set -eu
kvsim=$(cd "${BUILD:-build}" && pwd)/kvsim model=${MODEL:-data/SmolLM2-135M-Instruct.Q4_1.gguf} whole=0
dir=${1:?a folder for what is made}
mkdir -p "$dir"

timed() { # timed NAME COMMAND...
    name=$1 from=$(date +%s%N)
    shift
    "$@" >"$dir/answer" 2>"$dir/talk" || {
        echo "failed: $name: $*"
        tail -n 20 "$dir/answer" "$dir/talk"
        exit 1
    }
    took=$((($(date +%s%N) - from) / 1000000)) && whole=$((whole + took))
    printf '%7s s  %s\n' "$(seconds $took)" "$name"
}
seconds() { printf '%d.%02d' $(($1 / 1000)) $(($1 % 1000 / 10)); } # of milliseconds
step() { timed "$@"; }
show() {
    timed "$@"
    sed 's/^/           | /' "$dir/answer"
}
done_with() { # done_with 'from here to there': all steps so far
    printf '%7s s  %s\n' "$(seconds $whole)" "$1"
}
