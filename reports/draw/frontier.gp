# SPDX-License-Identifier: Apache-2.0
# Draws the panels of a frontier figure: intervals, frontier, reference lines, points, names, and
# the list of names where points carry numbers (panel 0 of the data). What a panel shows, and where,
# is in arrays over panels that frontier.c makes.

# A column's value for rows of one look in panel p; other rows are left out.
kind(p, frontier) = column("on_frontier") == frontier ? of(p, "x") : NaN
dot(p, frontier, hollow, oracle) = column("hollow") == hollow && column("oracle") == oracle ? kind(p, frontier) : NaN

set multiplot

if (title_text ne "") {
    set label 1 title_text at screen title_x, title_y left font title_font textcolor rgb ink
    set label 2 subtitle_text at screen title_x, title_y - 22.0 / canvas_y left textcolor rgb grey
}

# The legend: a sign, then its words 14 pixels behind. -1: not in this figure.
array sign[8] = [circle, circle, 0, 0, 0, 0, diamond, ring]
array sign_size[8] = [1, 1, 0, 0, 0, 0, 1.3, 1]
array sign_colour[8] = [orange, blue, pale, blue, grey, green, grey, grey]
array sign_dash[8] = [0, 0, 1, 2, 3, 3, 0, 0]
do for [i = 1:8] {
    if (legend_x[i] >= 0) {
        at_x = legend_x[i]
        at_y = legend_y[i]
        words = legend_text[i]
        paint = sign_colour[i]
        dash = sign_dash[i]
        set label 10 + i words at screen at_x + 14.0 / canvas_x, at_y left textcolor rgb ink
        if (sign[i] > 0) {
            shape = sign[i]
            large = sign_size[i] * dot_size
            set label 20 + i "" at screen at_x + 4.0 / canvas_x, at_y point pt shape ps large lc rgb paint lw 1.3
        } else { if (dash == 1) {
            set arrow 10 + i from screen at_x + 4.0 / canvas_x, at_y - 6.0 / canvas_y to screen at_x + 4.0 / canvas_x, at_y + 6.0 / canvas_y heads size screen 0.003, 90 lc rgb paint lw 1
        } else {
            set arrow 10 + i from screen at_x - 4.0 / canvas_x, at_y to screen at_x + 10.0 / canvas_x, at_y nohead lc rgb paint lw 1.4 dt dash
        } }
    }
}

do for [p = 1:panels] {
    panel_top = top[p]
    panel_bottom = bottom[p]
    x_from = x_low[p]
    x_to = x_high[p]
    y_from = y_low[p]
    y_to = y_high[p]
    x_text = x_title[p]
    y_text = y_title[p]
    is_log = log_y[p]
    at_reference = reference[p] # -1: there is none, of these three
    at_chance = chance[p]
    at_ceiling = ceiling[p]
    set lmargin at screen left
    set rmargin at screen right
    set tmargin at screen panel_top
    set bmargin at screen panel_bottom
    set xrange [x_from:x_to]
    set yrange [y_from:y_to]
    if (is_log > 0) { set logscale y } else { unset logscale y }
    set format y "%g"
    set xlabel x_text offset 0, 0.4
    set label 6 y_text at screen 14.0 / canvas_x, 0.5 * (panel_top + panel_bottom) center rotate by 90 textcolor rgb ink

    unset arrow 1
    unset arrow 2
    unset arrow 3
    if (at_reference >= 0) {
        set arrow 1 from graph 0, first at_reference to graph 1, first at_reference nohead lc rgb blue lw 1 dt 2 back
        set arrow 2 from graph 0, first at_chance to graph 1, first at_chance nohead lc rgb grey lw 1 dt 3 back
    }
    if (at_ceiling >= 0) {
        set arrow 3 from first at_ceiling, graph 0 to first at_ceiling, graph 1 nohead lc rgb green lw 1 dt 3 back
    }

    # One bar for all points, since the latency model is off for all alike: beside the axis's title, or below it.
    far = x_error[p]
    if (far > 0) {
        bar_y = panel_bottom - 1.0 * error_below / canvas_y
        bar_from = x_to - far * (x_from + x_to)
        set arrow 4 from first bar_from, screen bar_y to first x_to, screen bar_y heads size screen 0.003, 90 lc rgb grey lw 1
        set label 7 sprintf("model ±%.1f %%", 100 * far) at first bar_from, screen bar_y right offset -0.8, 0 textcolor rgb grey
    } else {
        unset arrow 4
        unset label 7
    }

    plot data using (kind(p, 0)):"y":"low":"high" with yerrorbars lc rgb pale pt -1 lw 0.8, \
         data using (kind(p, 1)):"y":"low":"high" with yerrorbars lc rgb 0xF0B48C pt -1 lw 0.9, \
         data using (kind(p, 1)):(of(p, "y")) with steps lc rgb orange lw 1.4, \
         data using (column("leader") == 1 ? of(p, "x") : NaN):"y":(column("leader_x") - column("x")):(column("leader_y") - column("y")) with vectors nohead lc rgb pale lw 0.8, \
         data using (dot(p, 0, 0, 0)):"y" with points pt circle ps dot_size lc rgb blue, \
         data using (dot(p, 0, 1, 0)):"y" with points pt ring ps dot_size lc rgb blue lw 1.3, \
         data using (dot(p, 0, 0, 1)):"y" with points pt diamond ps 1.3 * dot_size lc rgb blue, \
         data using (dot(p, 0, 1, 1)):"y" with points pt rhomb ps 1.3 * dot_size lc rgb blue lw 1.3, \
         data using (dot(p, 1, 0, 0)):"y" with points pt circle ps dot_size lc rgb orange, \
         data using (dot(p, 1, 1, 0)):"y" with points pt ring ps dot_size lc rgb orange lw 1.3, \
         data using (dot(p, 1, 0, 1)):"y" with points pt diamond ps 1.3 * dot_size lc rgb orange, \
         data using (dot(p, 1, 1, 1)):"y" with points pt rhomb ps 1.3 * dot_size lc rgb orange lw 1.3, \
         data using (label_at(p, -1)):"label_y":(stringcolumn("label")):(name_colour(column("on_frontier"))) with labels right textcolor rgb variable, \
         data using (label_at(p, 0)):"label_y":(stringcolumn("label")):(name_colour(column("on_frontier"))) with labels center textcolor rgb variable, \
         data using (label_at(p, 1)):"label_y":(stringcolumn("label")):(name_colour(column("on_frontier"))) with labels left textcolor rgb variable
    unset label
    unset arrow
}

if (listed) {
    set lmargin at screen 0
    set rmargin at screen 1
    set tmargin at screen 1
    set bmargin at screen 0
    set xrange [0:1]
    set yrange [0:1]
    unset logscale y
    unset border
    unset tics
    unset grid
    unset xlabel
    unset label
    unset arrow
    unset key
    plot data using (label_at(0, 1)):"label_y":(stringcolumn("label")):(name_colour(column("on_frontier"))) with labels left textcolor rgb variable, \
         data using (label_at(0, -1)):"label_y":(stringcolumn("label")):(name_colour(column("on_frontier"))) with labels right textcolor rgb variable
}
unset multiplot
