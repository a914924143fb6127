# SPDX-License-Identifier: Apache-2.0
# How long generated text stays the 16-bit run's: Kaplan-Meier steps a policy, 95 % intervals at marks.
# Columns: row, tokens, share, low, high, mark.
# Needs besides style.gp: data, rows, name_of[], subtitle_text, key_below, last.

array paint[5] = [orange, blue, green, ink, grey]
array dash[3] = [1, 2, 4]
at(r, m, c) = column("row") == r && column("mark") == m ? column(c) : NaN
# Intervals of different rows stand beside each other.
beside(r) = last * 0.004 * (r - (rows + 1) / 2.0)

# Pixels beside the panel that the longest name needs; at most half of the figure's.
key_room = 300.0
do for [r = 1:rows] { if (52 + 6.8 * strlen(name_of[r]) > key_room) { key_room = 52 + 6.8 * strlen(name_of[r]) } }
if (key_room > canvas_x / 2.0) { key_room = canvas_x / 2.0 }

set margins 10, 4, key_below ? 5 + rows : 4.5, 6
if (!key_below) { set rmargin at screen 1 - (key_room + 36) / canvas_x }
set label 1 "How long the text stays the same" at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set xrange [0:1.02 * last]
set yrange [0:1]
set xlabel "tokens generated"
set ylabel "share of prompts with the 16-bit run's tokens so far"
if (key_below) { set key bmargin left Left reverse samplen 2 maxcols 1 } else { set key at screen 1 - key_room / canvas_x, 1 - 76.0 / canvas_y left top Left reverse samplen 2 }
plot for [r = 1:rows] data using (at(r, 1, "tokens") + beside(r)):(at(r, 1, "share")):(at(r, 1, "low")):(at(r, 1, "high")) with yerrorbars pt 0 lw 1 lc rgb paint[1 + (r - 1) % 5] notitle, \
     for [r = 1:rows] data using (at(r, 0, "tokens")):(at(r, 0, "share")) with steps lw 1.8 dt dash[1 + (r - 1) / 5 % 3] lc rgb paint[1 + (r - 1) % 5] title name_of[r]
