# SPDX-License-Identifier: Apache-2.0
# Heat maps by layer and channel, KV heads one above the other. Columns: panel, layer, channel, value.
# Needs besides style.gp: data, layers, heads, dim, panels, most[panels], titles[panels],
# title_text, subtitle_text.

set label 1 title_text at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font ",14" textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set multiplot
unset grid
set palette defined (0 "#FFFFFF", 0.3 "#CFE3F2", 0.7 "#0072B2", 1 "#0B2545")
set logscale cb
set cbtics scale 0.3
set format cb "%g"
set xrange [-0.5:layers - 0.5]
set yrange [-0.5:heads * dim - 0.5]
set ytics dim
rows = panels > 1 ? 2 : 1
columns = panels > 1 ? 2 : 1
wide = (canvas_x - 40.0) / columns
high = (canvas_y - 96.0) / rows
do for [p = 1:panels] {
    x = 20 + wide * ((p - 1) % columns)
    y = 76 + high * int((p - 1) / columns)
    set lmargin at screen (x + 48) / canvas_x
    set rmargin at screen (x + wide - 82) / canvas_x
    set tmargin at screen 1 - (y + 24) / canvas_y
    set bmargin at screen 1 - (y + high - 44) / canvas_y
    set cbrange [most[p] / 1000:most[p]]
    set title titles[p] offset 0, -0.6 textcolor rgb ink
    set xlabel "layer" offset 0, 0.6
    set ylabel "channel" offset 1.2, 0
    do for [h = 1:heads - 1] {
        set arrow h from -0.5, h * dim - 0.5 to layers - 0.5, h * dim - 0.5 nohead lc rgb grey lw 0.5 front
    }
    plot data every ::((p - 1) * layers * heads * dim)::(p * layers * heads * dim - 1) using (column("layer")):(column("channel")):(column("value") < most[p] / 1000 ? most[p] / 1000 : column("value")) with image
    unset label 1
    unset label 2
}
unset multiplot
