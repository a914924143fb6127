# SPDX-License-Identifier: Apache-2.0
# Divergence at equal bits by what may choose its own width: exact (filled, with intervals), predicted
# (hollow). Columns: budget, place, kl, low, high, predicted, null, name.
# Needs besides style.gp: data, budgets, bits[], families, subtitle_text.

array paint[3] = [orange, blue, green]
colour(b) = paint[1 + b % 3]
of(b, c) = column("budget") == b ? column(c) : NaN
known(b, c) = column("null") == 0 ? of(b, c) : NaN
wrong(b, c) = column("null") == 1 ? of(b, c) : NaN

set margins 32, 4, 4.5, 8
set label 1 "What each freedom to choose widths is worth, at the bits of uniform storage" at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set logscale x
set format x "%g"
set label 3 "filled: run exactly, with 95 % intervals; hollow: predicted from gradients; crosses: the same widths on the wrong cells" at screen 16.0 / canvas_x, 1 - 64.0 / canvas_y left textcolor rgb grey
set xlabel "KL to 16 bit, nats a scored token"
set yrange [0.4:families + 0.6]
set key at screen 1 - 16.0 / canvas_x, 1 - 80.0 / canvas_y right top horizontal samplen 1 width 1
plot for [b = 0:budgets - 1] data using (known(b, "kl")):(column("place")):(known(b, "low")):(known(b, "high")):ytic(stringcolumn("name")) with xerrorbars pt circle ps dot_size lw 1.2 lc rgb colour(b) title bits[b + 1], \
     for [b = 0:budgets - 1] data using (wrong(b, "kl")):(column("place")):(wrong(b, "low")):(wrong(b, "high")) with xerrorbars pt 2 ps dot_size lw 1.2 lc rgb colour(b) notitle, \
     for [b = 0:budgets - 1] data using (of(b, "predicted")):(column("place")) with points pt ring ps dot_size lw 1 lc rgb colour(b) notitle
