# SPDX-License-Identifier: Apache-2.0
# Where bits matter: heat maps of layer and head for keys and values; bars by position, class and
# distance to the prompt's end. Columns: panel, x, y, place, key, value.
# Needs besides style.gp: data, layers, heads, tics[3] (places of the bars),
# title_text, subtitle_text.

row(p, c) = strcol("panel") eq p ? column(c) : NaN
set label 1 title_text at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set multiplot
unset grid
set palette defined (0 "#FFFFFF", 0.25 "#CFE3F2", 0.6 "#0072B2", 1 "#0B2545")
set logscale cb
set cbrange [0.05:20]
set cbtics scale 0.3
set xrange [-0.5:layers - 0.5]
set yrange [-0.5:heads - 0.5]
set ytics 1
set xtics 1 + int(layers / 16)
array sides[2] = ["key", "value"]
array words[2] = ["keys", "values"]
do for [s = 1:2] {
    set lmargin at screen 64.0 / canvas_x
    set rmargin at screen 1 - 110.0 / canvas_x
    set tmargin at screen 1 - (86.0 + 150 * (s - 1)) / canvas_y
    set bmargin at screen 1 - (176.0 + 150 * (s - 1)) / canvas_y
    set title words[s] offset 0, -0.7 textcolor rgb ink
    set ylabel "KV head" offset 1.2, 0
    if (s == 2) { set xlabel "layer" offset 0, 0.2 } else { unset xlabel }
    plot data every ::0::(layers * heads - 1) using (column("x")):(column("y")):(column(sides[s])) with image
    unset label 1
    unset label 2
}
unset logscale
unset xlabel
set grid ytics lc rgb 0xEBEBEB lt 1 lw 0.7
set boxwidth 0.36
set style fill solid 0.9 noborder
set xrange [*:*]
set yrange [0:*]
set ytics auto
array panels[3] = ["position", "class", "distance"]
array titles[3] = ["position in the sequence", "class of token", "distance to the prompt's end"]
do for [p = 1:3] {
    set lmargin at screen (64.0 + 318 * (p - 1)) / canvas_x
    set rmargin at screen (340.0 + 318 * (p - 1)) / canvas_x
    set tmargin at screen 1 - 410.0 / canvas_y
    set bmargin at screen 110.0 / canvas_y
    set title titles[p] offset 0, -0.7 textcolor rgb ink
    if (p == 1) { set ylabel "damage of a token, relative" offset 1.2, 0 } else { unset ylabel }
    eval "set xtics rotate by 90 right font '" . small_font . "' (" . tics[p] . ")"
    plot data using (row(panels[p], "x") - 0.19):(row(panels[p], "key")) with boxes fc rgb blue, \
         data using (row(panels[p], "x") + 0.19):(row(panels[p], "value")) with boxes fc rgb orange
}
unset multiplot
