# SPDX-License-Identifier: Apache-2.0
# Relative error of formats against effective bits, keys above values. A line joins a format's
# widths; orange: no other format has a smaller error at as few bits.

dot(p, frontier) = column("on_frontier") == frontier ? of(p, "effective_bits") : NaN

set multiplot
set label 1 "Error of formats on keys and values" at screen title_x, title_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen title_x, title_y - 22.0 / canvas_y left textcolor rgb grey
legend_y = title_y - 48.0 / canvas_y
set label 3 "no other is closer at as few bits" at screen left, legend_y left offset 0.9, -0.22 point pt circle ps dot_size lc rgb orange textcolor rgb ink
set label 4 "beaten" at screen left + 270.0 / canvas_x, legend_y left offset 0.9, -0.22 point pt circle ps dot_size lc rgb blue textcolor rgb ink
set label 5 "a format's widths" at screen left + 370.0 / canvas_x, legend_y left offset 0.9, 0 textcolor rgb ink
set arrow 5 from screen left + 350.0 / canvas_x, legend_y to screen left + 372.0 / canvas_x, legend_y nohead lc rgb pale lw 1.2
set lmargin at screen left
set rmargin at screen right
set logscale y
set format y "%g"

do for [p = 1:2] {
    panel_top = top[p]
    panel_bottom = bottom[p]
    x_from = x_low[p]
    x_to = x_high[p]
    y_from = y_low[p]
    y_to = y_high[p]
    set tmargin at screen panel_top
    set bmargin at screen panel_bottom
    set xrange [x_from:x_to]
    set yrange [y_from:y_to]
    set xlabel "effective bits a value: codes, scales, minima, outliers" offset 0, 0.4
    set label 6 (p == 1 ? "keys: relative error |e| / |x|" : "values: relative error |e| / |x|") at screen 14.0 / canvas_x, 0.5 * (panel_top + panel_bottom) center rotate by 90 textcolor rgb ink
    plot data using (of(p, "effective_bits")):"relative_error" with lines lc rgb pale lw 1.2, \
         data using (column("leader") == 1 ? of(p, "effective_bits") : NaN):"relative_error":(column("leader_x") - column("effective_bits")):(column("leader_y") - column("relative_error")) with vectors nohead lc rgb pale lw 0.8, \
         data using (dot(p, 0)):"relative_error" with points pt circle ps 0.7 * dot_size lc rgb blue, \
         data using (dot(p, 1)):"relative_error" with points pt circle ps 0.7 * dot_size lc rgb orange, \
         data using (label_at(p, -1)):"label_y":(stringcolumn("label")):(name_colour(column("on_frontier"))) with labels right textcolor rgb variable, \
         data using (label_at(p, 0)):"label_y":(stringcolumn("label")):(name_colour(column("on_frontier"))) with labels center textcolor rgb variable, \
         data using (label_at(p, 1)):"label_y":(stringcolumn("label")):(name_colour(column("on_frontier"))) with labels left textcolor rgb variable
    unset label
    unset arrow
}
unset multiplot
