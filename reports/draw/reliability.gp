# SPDX-License-Identifier: Apache-2.0
# What the frontier's bootstrap frequency is worth, on made-up sets whose frontier is known:
#   make build/analysis/test/make_reliability && build/analysis/test/make_reliability > work/reliability.tsv
#   gnuplot -e "format='svg'; name='reports/figures/reliability'; canvas_x=660; canvas_y=560; data='work/reliability.tsv'" \
#     reports/draw/style.gp reports/draw/reliability.gp
# Columns: items, points, frequency, truly_on, low, high. Needs besides style.gp: data.

of(n, c) = column("items") == n ? column(c) : NaN
set label 1 "Does a point belong to the frontier?" at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 "1,000 made-up sets of 12 policies; bars: 95 % intervals; dotted: frequency = probability" at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set margins screen 64.0 / canvas_x, screen 1 - 24.0 / canvas_x, screen 58.0 / canvas_y, screen 1 - 66.0 / canvas_y
set xrange [-0.02:1.02]
set yrange [-0.02:1.02]
set xlabel "share of bootstrap resamples in which the point is on the frontier" offset 0, 0.4
set ylabel "share of such points that are truly on it" offset 1.2, 0
set key at graph 0.98, 0.2 right samplen 2 spacing 1.3
plot x with lines lc rgb grey dt 3 notitle, \
     data using (of(100, "frequency")):(of(100, "truly_on")):(of(100, "low")):(of(100, "high")) with yerrorbars pt diamond ps dot_size lc rgb orange title "100 items", \
     data using (of(500, "frequency")):(of(500, "truly_on")):(of(500, "low")):(of(500, "high")) with yerrorbars pt circle ps dot_size lc rgb blue title "500 items", \
     data using (of(2000, "frequency")):(of(2000, "truly_on")):(of(2000, "low")):(of(2000, "high")) with yerrorbars pt ring ps dot_size lw 1.4 lc rgb green title "2,000 items"
