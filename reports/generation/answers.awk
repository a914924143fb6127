# SPDX-License-Identifier: Apache-2.0
# The table of answers of reports/generation.md from what `kvsim generate --table answers --tsv` prints.
NR == 1 {
    for (i = 1; i <= NF; i++) at[$i] = i
    print "| policy | filter | right | [95 %] | 16 bit | difference, points [95 %] | McNemar's p |"
    print "|---|---|---|---|---|---|---|"
    next
}
function of(name) { return $at[name] }
function percent(name) { return sprintf("%.1f", 100 * of(name)) }
{
    printf "| `%s` | %s | %s %% of %d | [%s, %s] | %s %% | %+.1f [%+.1f, %+.1f] | %s |\n", of("label"), of("filter"), percent("right"),
        of("judged"), percent("low"), percent("high"), percent("right16"), 100 * of("difference"), 100 * of("difference_low"),
        100 * of("difference_high"), of("mcnemar_p")
    floor = percent("floor")
}
END { printf "\nAlways giving the commonest answer has %s %% right.\n\n", floor }
