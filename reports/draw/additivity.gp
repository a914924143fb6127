# SPDX-License-Identifier: Apache-2.0
# Joint exact divergence over the sum of its parts, against that sum and against the share flipped.
# Columns: unit, bits, flipped, share, sum_of_singles, exact, predicted.
# Needs besides style.gp: data, widths, width[], title_text, subtitle_text.

of(u, b, c) = strcol("unit") eq u && column("bits") == b ? column(c) : NaN
over(b, c) = column("bits") == b && strcol("unit") ne "position" ? column(c) : NaN
colours = "0x0072B2 0xD55E00 0x009E73 0x8A8A8A 0x222222"
colour(k) = int(word(colours, (k - 1) % 5 + 1))
set label 1 title_text at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set multiplot layout 1, 2 margins screen 64.0 / canvas_x, 1 - 16.0 / canvas_x, 58.0 / canvas_y, 1 - 84.0 / canvas_y spacing screen 70.0 / canvas_x
set key top left samplen 0.5 textcolor rgb ink
set logscale xy
set ylabel "exact KL over the sum of its parts' KL" offset 1.2, 0
array xs[2] = ["sum_of_singles", "share"]
array names[2] = ["sum of the parts' exact KL, nats a scored token", "share of parts flipped"]
do for [p = 1:2] {
    set xlabel names[p] offset 0, 0.4
    plot for [k = 1:widths] data using (over(width[k], xs[p])):(over(width[k], "exact") / column("sum_of_singles")) with points pt circle ps dot_size lc rgb colour(k) title sprintf("%d bits", width[k]), \
         for [k = 1:widths] data using (of("position", width[k], xs[p])):(of("position", width[k], "exact") / column("sum_of_singles")) with points pt rhomb ps 1.2 * dot_size lw 1.4 lc rgb colour(k) notitle, \
         1 with lines lc rgb ink dt 3 notitle
    unset label 1
    unset label 2
    unset key
}
unset multiplot
