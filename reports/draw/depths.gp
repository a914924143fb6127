# SPDX-License-Identifier: Apache-2.0
# Divergence by depth: the mean KL of scored positions in each bucket of contexts, with 95 %
# intervals, a line a policy. Columns: row, context, kl, low, high.
# Needs besides style.gp: data, rows, name_of[], subtitle_text, key_below.

array paint[5] = [orange, blue, green, ink, grey]
array shape[3] = [circle, ring, diamond]
at(r, c) = column("row") == r ? column(c) : NaN

set margins 10, key_below ? 4 : 40, key_below ? 5 + rows : 4.5, 6
set label 1 "Divergence by depth" at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set logscale xy
set logscale x 2
set format y "%g"
set xlabel "tokens that a scored position sees"
set ylabel "KL to 16 bit, nats a token"
if (key_below) { set key bmargin left Left reverse samplen 1 maxcols 1 } else { set key at screen 1 - 300.0 / canvas_x, 1 - 76.0 / canvas_y left top Left reverse samplen 1 }
plot for [r = 1:rows] data using (at(r, "context")):(at(r, "kl")):(at(r, "low")):(at(r, "high")) with yerrorbars pt shape[1 + (r - 1) / 5 % 3] ps dot_size lw 1.2 lc rgb paint[1 + (r - 1) % 5] notitle, \
     for [r = 1:rows] data using (at(r, "context")):(at(r, "kl")) with linespoints pt shape[1 + (r - 1) / 5 % 3] ps dot_size lw 1.2 lc rgb paint[1 + (r - 1) % 5] title name_of[r]
