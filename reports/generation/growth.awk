# SPDX-License-Identifier: Apache-2.0
# Does own / forced grow? The ratio of the last quarter over that of the first, with a bootstrap interval over prompts.
# Reads lines of label and the sums of KL of a prompt: own and forced of the first quarter, own and forced of the last;
# tabs between, labels together, as `kvsim sql --tsv` prints them.
function growth(first_own, first_forced, last_own, last_forced) { return last_own * first_forced / (last_forced * first_own) }
function drawn(    i, k, s) {
    for (k = 2; k <= 5; k++) s[k] = 0
    for (i = 0; i < n; i++) {
        p = 1 + int(n * rand())
        for (k = 2; k <= 5; k++) s[k] += sum[p, k]
    }
    return growth(s[2], s[3], s[4], s[5])
}
# Sorts g[1..draws] in place.
function sort(g, draws,    gap, i, j, x) {
    for (gap = int(draws / 2); gap > 0; gap = int(gap / 2))
        for (i = gap + 1; i <= draws; i++) {
            x = g[i]
            for (j = i - gap; j > 0 && g[j] > x; j -= gap) g[j + gap] = g[j]
            g[j + gap] = x
        }
}
function say(    d) {
    if (!n || !all[3]) return
    for (d = 1; d <= 2000; d++) g[d] = drawn()
    sort(g, 2000)
    printf "| `%s` | %.2f [%.2f, %.2f] |\n", label, growth(all[2], all[3], all[4], all[5]), g[50], g[1951]
}
BEGIN {
    srand(1)
    print "| format | own / forced in the last quarter over that in the first [95 %] |"
    print "|---|---|"
}
NR > 1 {
    if ($1 != label) {
        say()
        label = $1
        n = 0
        for (k = 2; k <= 5; k++) all[k] = 0
    }
    n++
    for (k = 2; k <= 5; k++) all[k] += sum[n, k] = $k
}
END { say() }
