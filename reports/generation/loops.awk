# SPDX-License-Identifier: Apache-2.0
# How many of each format's sequences end in a loop: three copies of a run of up to 16 tokens. Reads lines of
# label and tokens (a JSON list), tab between, as `kvsim sql --tsv` prints them.
NR > 1 {
    gsub(/[][]/, "", $2)
    n = split($2, token, ",")
    loops = 0
    for (p = 1; p <= 16 && !loops && n >= 3 * p; p++) {
        loops = 1
        for (k = 0; k < 2 * p && loops; k++) loops = token[n - k] == token[n - k - p]
    }
    if (!($1 in all)) order[++rows] = $1
    all[$1]++
    ends[$1] += loops
}
END {
    print "| format | sequences that end in a loop |"
    print "|---|---|"
    for (i = 1; i <= rows; i++) printf "| `%s` | %d of %d |\n", order[i], ends[order[i]], all[order[i]]
}
