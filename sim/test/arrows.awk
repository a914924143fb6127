# SPDX-License-Identifier: Apache-2.0
# Arrows that run against the plan. First file: "ROOM BELOW...", the rooms that each stands on; then
# lines "FROM TO [WHY]" between files. Prints those whose end their beginning does not stand on.

function room(file) {
    return match(file, /\/[^\/]*$/) ? substr(file, 1, RSTART - 1) : "."
}

function stand(top, on,   i) {
    for (i = 1; i <= n[on]; i++)
        if (!((top, under[on, i]) in below)) {
            below[top, under[on, i]] = 1
            stand(top, under[on, i])
        }
}

FNR == NR {
    for (i = 2; i <= NF; i++) {
        under[$1, ++n[$1]] = $i
        known[$i] = 1
    }
    known[$1] = 1
    next
}

FNR == 1 { for (top in n) stand(top, top) }

{
    from = room($1)
    to = room($2)
    if (!(from in known)) print $1 " stands in no room"
    else if (from != to && !((from, to) in below) && !((from, $2) in below) && $2 !~ /^policies\/polic/)
        print $1 " -> " $2 (NF > 2 ? " (" $3 ")" : "")
}
