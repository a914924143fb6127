# SPDX-License-Identifier: Apache-2.0
# Arrows between sources as the linker sees them: "FROM TO SYMBOL" for symbols that FROM's object
# leaves open and TO's defines. The paths of one NAME.isa.c are one. Says on stderr what is not built.
#
#     sh links.sh BUILD < names of sources
set -u
objects=$(mktemp) && trap 'rm -f "$objects"' EXIT
while read -r source; do
    case $source in *.isa.c) stem="${source%.isa.c}.*.o" ;; *) stem=${source%.c}.o ;; esac
    for object in "$1"/$stem; do
        [ -f "$object" ] && echo "$object $source" || echo "$source" >&2
    done
done >"$objects"
[ -s "$objects" ] || exit 0
cut -d' ' -f1 "$objects" | xargs nm -A -P -g | awk '
    FNR == NR { source[$1 ":"] = $2; next }
    $3 == "U" { open[++n] = source[$1] " " $2; next }
    $3 != "w" { home[$2] = source[$1] }
    END {
        for (i = 1; i <= n; i++) {
            split(open[i], x, " ")
            if (x[2] in home && home[x[2]] != x[1] && !((x[1], home[x[2]]) in told)) {
                told[x[1], home[x[2]]] = 1
                print x[1], home[x[2]], x[2]
            }
        }
    }' "$objects" -
