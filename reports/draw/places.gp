# SPDX-License-Identifier: Apache-2.0
# Facts by the length of the context and their depth in it, a heat map a policy: colour is the margin's
# difference to 16 bit, the number the share of answers written whole in %, a star a difference at p < .01.
# Columns: panel, x, y, margin, text, ink.
# Needs besides style.gp: data, panels, across, name_of[], subtitle_text, depths, lengths (how many),
# depth_tics, length_tics, legend_text, most (of the colours), top_y, wide, high, step_x, step_y in pixels.

row(p, c) = column("panel") == p ? column(c) : NaN
cell(p) = column("panel") == p ? strcol("text") : ""

set label 1 "Facts by length and depth" at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set label 3 legend_text at screen 16.0 / canvas_x, 1 - 62.0 / canvas_y left textcolor rgb grey
set multiplot
unset grid
set palette defined (-1 "#D55E00", -0.4 "#F3C6A5", 0 "#FFFFFF", 0.4 "#A9CDE6", 1 "#0072B2")
set cbrange [-most:most]
set cbtics scale 0.3
set colorbox horizontal user origin screen 1 - 216.0 / canvas_x, screen 1 - 30.0 / canvas_y size screen 200.0 / canvas_x, screen 10.0 / canvas_y
set cblabel "margin to 16 bit, nats" offset 0, 0.4
set xrange [-0.5:depths - 0.5]
set yrange [-0.5:lengths - 0.5]
eval "set xtics scale 0 (" . depth_tics . ")"
eval "set ytics scale 0 (" . length_tics . ")"
do for [p = 1:panels] {
    left = 64.0 + step_x * ((p - 1) % across)
    above = top_y + step_y * ((p - 1) / across)
    set lmargin at screen left / canvas_x
    set rmargin at screen (left + wide) / canvas_x
    set tmargin at screen 1 - above / canvas_y
    set bmargin at screen 1 - (above + high) / canvas_y
    set title name_of[p] offset 0, -0.6 textcolor rgb ink
    plot data using (row(p, "x")):(row(p, "y")):(row(p, "x") - 0.5):(row(p, "x") + 0.5):(row(p, "y") - 0.5):(row(p, "y") + 0.5):(row(p, "margin")) with boxxyerror fs solid 1 noborder fc palette notitle, \
         data using (row(p, "x")):(row(p, "y")):(cell(p)):(column("ink")) with labels textcolor rgb variable notitle
    unset label 1
    unset label 2
    unset label 3
    unset colorbox
}
unset multiplot
