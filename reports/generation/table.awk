# SPDX-License-Identifier: Apache-2.0
# The tables of reports/generation.md from what `kvsim generate --tsv` prints. tokens: the most that were generated.
NR == 1 {
    for (i = 1; i <= NF; i++) at[$i] = i
    print "| format | prompts that part | first other token, median | same text at 16 | at 64 [95 %] | at 128 | same tokens |"
    print "|---|---|---|---|---|---|---|"
    next
}
function of(name) { return $at[name] }
{
    printf "| `%s` | %d of %d | %s | %.2f | %.2f [%.2f, %.2f] | %.2f | %.2f |\n", of("label"), of("parted"), of("prompts"),
        of("first_other") == "" ? "none" : of("first_other"), of("equal_16"), of("equal_64"), of("equal_64_low"),
        of("equal_64_high"), of("equal_128"), of("agreement")
    if (of("ratio") == "") next
    row[++n] = sprintf("| `%s` | %.5f | %.5f | %.2f [%.2f, %.2f] | %s | %s | %s | %s | %s |", of("label"), of("kl_own"), of("kl_forced"),
        of("ratio"), of("ratio_low"), of("ratio_high"), of("ratio_parted") == "" ? "" : sprintf("%.2f [%.2f, %.2f]",
        of("ratio_parted"), of("ratio_parted_low"), of("ratio_parted_high")), short("ratio_q1"), short("ratio_q2"),
        short("ratio_q3"), short("ratio_q4"))
}
function short(name) { return of(name) == "" ? "" : sprintf("%.2f", of(name)) }
END {
    print ""
    printf "| format | KL, own path | KL, forced | own / forced [95 %%] | behind the first other token [95 %%] | tokens"
    for (i = 0; i < 4; i++) printf " %d-%d |", i * tokens / 4 + 1, (i + 1) * tokens / 4
    print ""
    print "|---|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= n; i++) print row[i]
}
