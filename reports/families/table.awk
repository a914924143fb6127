# SPDX-License-Identifier: Apache-2.0
# The tables of reports/families.md, from sim/test/reference/families.json and what `kvsim show --tsv` says of the store:
# divergence by scheme and family with ranks, how well the ranks agree, and how far the other program's figures are.
#   table.awk families.json rows.tsv
BEGIN {
    FS = "\t"
    n_models = split("SmolLM2-135M Qwen2.5-Coder-0.5B Gemma-3-270m", models, " ")
    key["qwen2.5-coder-0.5b"] = models[2]
    key["gemma3-270m"] = models[3]
    scheme["fp16"] = "static:bits=16@sym"
    scheme["sym8"] = "static:bits=8@sym"
    scheme["sym4"] = "static:bits=4@sym"
    for (w = 2; w <= 8; w *= 2) scheme["asym" w "_g32"] = "static:bits=" w "@asym:group=32"
    scheme["q8_0_hforder"] = "static:bits=8@q8_0:order=hf"
    scheme["q4_0_hforder"] = "static:bits=4@q4_0:order=hf"
    scheme["had4"] = "static:bits=4@hadamard(sym)"
    scheme["k16v4_asym_g32"] = "static:k=16,v=4@asym:group=32"
    scheme["k4v16_asym_g32"] = "static:k=4,v=16@asym:group=32"
    scheme["k8v4_asym_g32"] = "static:k=8,v=4@asym:group=32"
    scheme["fp32"] = "none"
}

# ---- the other program: a line a scheme, inside the object of a model

FNR == NR && /^"/ {
    name = substr($0, 2, index(substr($0, 2), "\"") - 1)
    if (name in key) model = key[name]
}
FNR == NR && /^  "/ && /"kl"/ {
    split($0, part, /["{},: ]+/) # "" name kl X top1 Y se Z
    theirs[model, scheme[part[2]]] = part[4]
    theirs_se[model, scheme[part[2]]] = part[8]
}
FNR == NR { next }

# ---- ours

FNR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}
function value(name) { return $(column[name]) }
# What is each model's own gets one name.
function named(label, spec, bits) {
    if (label ~ /^cells:/ && spec !~ /hold=matched/) return "learned cells, hold=run, " sprintf("%.0f", bits) " bits"
    if (label ~ /^cells:/) return "learned cells, " sprintf("%.0f", bits) " bits"
    if (label ~ /^layerwise:by=head/) return "plan by layer, head, K and V, " sprintf("%.0f", bits) " bits"
    if (label ~ /^layerwise:/) return "8 bits in the first and last two layers, else 4"
    if (label !~ /q[48]_0/) sub(/,order=(hf|ggml)$/, ", the other order", label)
    return label
}
{
    name = value("model")
    m = name ~ /[Ss]mol/ ? 1 : name ~ /Qwen/ ? 2 : 3
    row = named(value("label"), value("spec"), value("allocated_bits"))
    if (!(row in seen)) rows[++n_rows] = row
    seen[row]++
    here[row, m] = 1
    kl[row, m] = value("kl_nats")
    half[row, m] = (value("kl_nats_high") - value("kl_nats_low")) / 2
    bits[row, m] = value("allocated_bits")
    items[m] = value("n")
}

function print_divergence(   i, r, m) {
    printf "| scheme |"
    for (m = 1; m <= n_models; m++) printf " %s: bits | KL [95 %%] | rank |", models[m]
    printf "\n|---|"
    for (m = 1; m <= n_models; m++) printf "---|---|---|"
    print ""
    for (i = 1; i <= n_rows; i++) {
        r = rows[i]
        printf "| `%s` |", r
        for (m = 1; m <= n_models; m++)
            if ((r, m) in here)
                printf " %.2f | %.3g ± %.1g | %s |", bits[r, m], kl[r, m], half[r, m], ((r, m) in rank) ? rank[r, m] : ""
            else printf " | | |"
        print ""
    }
}

# Ranks over the rows that all families have, those that store 16 bits and more left out.
function rank_rows(low, high,   i, j, m, r, all) {
    split("", rank)
    split("", chosen)
    n_chosen = 0
    for (i = 1; i <= n_rows; i++) {
        r = rows[i]
        all = 1
        for (m = 1; m <= n_models; m++) all = all && ((r, m) in here) && bits[r, m] >= low && bits[r, m] <= high
        if (all) chosen[++n_chosen] = r
    }
    for (m = 1; m <= n_models; m++)
        for (i = 1; i <= n_chosen; i++) {
            rank[chosen[i], m] = 1
            for (j = 1; j <= n_chosen; j++) {
                if (kl[chosen[j], m] < kl[chosen[i], m]) rank[chosen[i], m]++
                if (j != i && kl[chosen[j], m] == kl[chosen[i], m]) rank[chosen[i], m] += 0.5
            }
        }
}
# Kendall's tau (a: equal divergences are no order) and Spearman's rho.
function agree(a, b,   i, j, x, tau, sx, sxx, sy, syy, sxy, u, v, n) {
    n = n_chosen
    for (i = 1; i <= n; i++) {
        for (j = 1; j < i; j++) {
            x = (kl[chosen[i], a] - kl[chosen[j], a]) * (kl[chosen[i], b] - kl[chosen[j], b])
            tau += (x > 0) - (x < 0)
        }
        u = rank[chosen[i], a]
        v = rank[chosen[i], b]
        sx += u; sxx += u * u; sy += v; syy += v * v; sxy += u * v
    }
    if (n < 3) return "too few"
    return sprintf("%.2f / %.2f", tau / (n * (n - 1) / 2), (n * sxy - sx * sy) / sqrt((n * sxx - sx * sx) * (n * syy - sy * sy)))
}
function print_agreement(what,   a, b) {
    printf "| %s, %d schemes |", what, n_chosen
    for (a = 1; a <= n_models; a++)
        for (b = a + 1; b <= n_models; b++) printf " %s |", agree(a, b)
    print ""
}

END {
    rank_rows(0, 15.99)
    print_divergence()
    printf "\n| Kendall's tau / Spearman's rho |"
    for (a = 1; a <= n_models; a++)
        for (b = a + 1; b <= n_models; b++) printf " %s and %s |", models[a], models[b]
    print "\n|---|---|---|---|"
    print_agreement("all")
    rank_rows(3.9, 5.1)
    print_agreement("between 4 and 5 bits")
    rank_rows(7.9, 9.1)
    print_agreement("between 8 and 9 bits")

    print "\n| against the other program | ours | theirs | combined standard errors apart |\n|---|---|---|---|"
    for (m = 2; m <= n_models; m++)
        for (i = 1; i <= n_rows; i++) {
            r = rows[i]
            other = models[m] SUBSEP r
            if (r != "none" && (other in theirs) && ((r, m) in here)) {
                se = sqrt((half[r, m] / 1.96) ^ 2 + theirs_se[models[m], r] ^ 2)
                printf "| %s `%s` | %.4g | %.4g | %s |\n", models[m], r, kl[r, m], theirs[models[m], r],
                    (se > 0) ? sprintf("%.1f", (kl[r, m] - theirs[models[m], r]) / se) : "both 0"
            }
        }
}
