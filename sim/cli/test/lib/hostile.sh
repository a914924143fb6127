# SPDX-License-Identifier: Apache-2.0
# Mistakes as rows: exit code | words of the sentence | command. Source after tap.sh, then
#
#     export kvsim
#     hostile_rows 'issue 13, hostile' <<'ROWS'
#     2 | no policy is named | kvsim replay t statik -m good.gguf
#     ROWS
#
# Each must end within seconds with one clear sentence on stderr (1 could not, 2 wrong usage, 0 done), and print no
# number that is not finite. `kvsim` in a row is the built program. `rows` counts them.

hostile() { # hostile NAME CODE WORDS COMMAND
    # KILL, since a hang may be one that no signal ends.
    timeout -s KILL 20 sh -c "kvsim() { \"\$kvsim\" \"\$@\"; }; $4" >out.log 2>err.log </dev/null
    code=$? why=
    [ "$code" = "$2" ] || why="code $code, wanted $2"
    grep -qF -- "$3" err.log out.log || why="$why; no words '$3'"
    grep -qiE '(^|[ 	:])-?(nan|inf)([ ,	]|$)' out.log && why="$why; a number that is not finite"
    [ "$code" = 0 ] || [ "$(grep -c '^kvsim: ' err.log)" = 1 ] || why="$why; no single sentence"
    report "$([ -z "$why" ]; echo $?)" "$1: $4" || {
        echo "# $why"
        tail -n 3 err.log | sed 's/^/# said /'
    }
}

hostile_rows() { # hostile_rows NAME, rows on stdin
    rows=0
    while IFS='|' read -r code words command; do
        case $code in '' | '#'*) continue ;; esac
        rows=$((rows + 1))
        words=${words# } && hostile "$1" "${code% }" "${words% }" "${command# }"
    done
}
