# SPDX-License-Identifier: Apache-2.0
# How many of each format's sequences end in a loop, and own / forced by which of the two texts does. Reads lines of
# label, tokens of the format and of the reference (JSON lists) and the sums of KL on both paths, tabs between, as
# `kvsim sql --tsv` prints them.

# Three copies of a run of up to 16 tokens at the end of a list.
function loops(list,    token, n, p, k) {
    gsub(/[][]/, "", list)
    n = split(list, token, ",")
    for (p = 1; p <= 16 && n >= 3 * p; p++) {
        for (k = 0; k < 2 * p && token[n - k] == token[n - k - p]; k++) {}
        if (k == 2 * p) return 1
    }
    return 0
}
function ratio(label, which) {
    if (!forced[label, which]) return ""
    return sprintf("%.2f (%d)", own[label, which] / forced[label, which], n[label, which])
}
NR > 1 {
    ends = loops($2)
    which = 2 * ends + loops($3)
    if (!($1 in all)) order[++rows] = $1
    all[$1]++
    looping[$1] += ends
    n[$1, which]++
    own[$1, which] += $4
    forced[$1, which] += $5
}
END {
    print "| format | sequences that end in a loop | own / forced where neither text does (how many) | its own alone | the reference's alone | both |"
    print "|---|---|---|---|---|---|"
    for (i = 1; i <= rows; i++)
        printf "| `%s` | %d of %d | %s | %s | %s | %s |\n", order[i], looping[order[i]], all[order[i]], ratio(order[i], 0),
            ratio(order[i], 2), ratio(order[i], 1), ratio(order[i], 3)
}
