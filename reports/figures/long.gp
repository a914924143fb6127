# SPDX-License-Identifier: Apache-2.0
# Divergence by depth of four windows of 8,192 tokens: after reports/draw/style.gp, from what studies.sh takes out of long.md.
# Needs: data.

stats data using "row" nooutput name "R"
at(r, c) = column("row") == r ? column(c) : NaN
array paint[3] = [green, orange, blue]
colour(r) = paint[1 + (r - 1) % 3] # neighbours differ
name_at(r) = at(r, "kl") * (r == 2 ? 0.75 : 1) # keys of 8 bits end close below kivi
set label 1 "Divergence by depth, four windows of 8,192 tokens of WikiText-2" at screen 0.02, 0.94 left font title_font textcolor rgb ink
set label 2 "SmolLM2-135M, every position scored; bars: 95 % intervals of the deepest" at screen 0.02, 0.87 left textcolor rgb grey
set lmargin at screen 0.09
set rmargin at screen 0.78
set tmargin at screen 0.8
set bmargin at screen 0.14
set logscale xy
set logscale x 2
set xrange [200:10500]
set yrange [0.0002:5]
set format y "%g"
set xtics (256, 512, 1024, 2048, 4096, 8192)
set xlabel "tokens that a scored position sees, at most"
set ylabel "KL to 16 bit, nats a token"
plot for [r = 1:R_max] data using (at(r, "context")):(at(r, "kl")):(at(r, "low")):(at(r, "high")) with yerrorbars pt -1 lw 1.2 lc rgb colour(r) notitle, \
     for [r = 1:R_max] data using (at(r, "context")):(at(r, "kl")) with linespoints pt circle ps dot_size lw 1.2 lc rgb colour(r) notitle, \
     for [r = 1:R_max] data using (column("context") == 8192 ? at(r, "context") : NaN):(name_at(r)):(strcol("name")) with labels left offset 1.6, 0 textcolor rgb ink notitle
