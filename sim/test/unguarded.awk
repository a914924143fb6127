# SPDX-License-Identifier: Apache-2.0
# Prints the functions of the library's interface that may raise an error without having set a guard
# (sim/base/guard.h): those from which kv_raise can be reached by calls, or by addresses handed on, that
# pass no function which calls kv_guard_enter or kv_guard_enter_first. Calls through tables of policies and formats are not seen.
#
#     objdump -d --no-show-raw-insn PROGRAM | awk -f sim/test/unguarded.awk sim/kvsim.symbols -
FNR == NR { interface[$1]; next }
/^[0-9a-f]+ <.*>:$/ { # a function begins
    at = $1
    sub(/^0+/, "", at)
    name[at] = substr($2, 2, length($2) - 3)
    next
}
at && match($0, /[0-9a-f]+ <[^>+]*>/) { # one that it calls, or whose address it takes
    split(substr($0, RSTART, RLENGTH), to, " ")
    if (to[1] != at) callers[to[1]] = callers[to[1]] " " at
}
END {
    for (f in name) {
        # What is split off keeps its function's name: "kv_record.cold".
        if (name[f] == "kv_raise") queue[++last] = f
        if (name[f] !~ /^kv_guard_enter/) continue
        n = split(callers[f], who, " ")
        for (i = 1; i <= n; i++) guarded[who[i]]
    }
    if (!last) print "kv_raise is not in it"
    while (++first <= last) {
        n = split(callers[queue[first]], who, " ")
        for (i = 1; i <= n; i++) {
            f = who[i]
            if (f in guarded || f in seen) continue
            seen[f]
            queue[++last] = f
            if (name[f] in interface) print name[f]
        }
    }
}
