# SPDX-License-Identifier: Apache-2.0
# Prints sim/quant/README.md with the program's own table of formats in it (make commands): table.sh KVSIM README
table() {
    "$1" list formats --long --tsv | awk -F'\t' '
NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i
          print "| format | what | widths: allocated bits a value | bytes of a unit | rounding | odd values | order, RoPE, stable, tag |"
          print "|---|---|---|---|---|---|---|"; next }
{ n = split($at["widths_bits"], w, "/"); split($at["allocated_bits"], b, "/"); s = ""
  for (i = 1; i <= n; i++) s = s (i > 1 ? ", " : "") w[i] ": " b[i]
  keys = $at["keys"] == "" ? "" : "; keys `" $at["keys"] "`"
  gsub(/\|/, "\\|")
  printf "| `%s` | %s (%s)%s | %s | %s: %s | %s | %s | %s order, coded %s RoPE, %s, %s |\n", $1,
         $at["summary"], $at["citation"], keys, s, $at["unit"], $at["layout"], $at["rounding"],
         $at["guards"], $at["order"], $at["rope"],
         $at["stable"] == "yes" ? "stable" : "not stable", $at["tag"] }'
}
table "$1" | awk '
    NR == FNR { table = table $0 "\n"; next }
    /^\| format \| what / { printf "%s", table; inside = 1 }
    !/^\|/ { inside = 0 }
    !inside' - "$2"
