# SPDX-License-Identifier: Apache-2.0
# Circles of a directed graph. Lines "FROM TO [WHY]" in; one line a circle out: its members, and for
# each member one of the arrows that keep it inside.
#
# What no arrow enters or leaves is taken away until nothing more goes; of the rest, two nodes that
# reach each other share a circle.

$1 != $2 && !(($1, $2) in why) {
    why[$1, $2] = $3
    to[$1] = to[$1] " " $2
    node[$1] = node[$2] = 1
}

# Whether taking nodes without an arrow out (or, turned round, without one in) took any.
function trim(   v, w, n, i, entered, leaves, took) {
    for (v in node) {
        n = split(to[v], w, " ")
        for (i = 1; i <= n; i++)
            if (w[i] in node) { leaves[v] = 1; entered[w[i]] = 1 }
    }
    for (v in node)
        if (!(v in leaves) || !(v in entered)) { delete node[v]; took = 1 }
    return took
}

function visit(from, v,   w, n, i) {
    n = split(to[v], w, " ")
    for (i = 1; i <= n; i++)
        if (w[i] in node && !((from, w[i]) in reach)) {
            reach[from, w[i]] = 1
            visit(from, w[i])
        }
}

# The arrows by which a circle's member leads on inside it: the first will do.
function arrow(v,   w, n, i) {
    n = split(to[v], w, " ")
    for (i = 1; i <= n; i++)
        if ((v, w[i]) in reach && (w[i], v) in reach)
            return v " -> " w[i] (why[v, w[i]] == "" ? "" : " (" why[v, w[i]] ")")
}

END {
    while (trim()) continue
    for (v in node) visit(v, v)
    for (v in node) {
        if (v in told || !((v, v) in reach)) continue
        members = 0
        text = ""
        for (u in node)
            if ((v, u) in reach && (u, v) in reach) {
                told[u] = 1
                members++
                text = text "; " arrow(u)
            }
        print members " in a circle: " substr(text, 3)
    }
}
