# SPDX-License-Identifier: Apache-2.0
# Predicted against exact divergence, a point a policy, with the calibration's line and band.
# Columns: panel, label, family, kl_nats, kl_low, kl_high, predicted, calibrated, low, high, outside.
# Needs besides style.gp: panels, panel_name[], panel_unit[], title_text, subtitle_text, low_kl, high_kl.

of(p, c) = column("panel") == p ? column(c) : NaN
inside(p, c) = column("outside") == 0 ? of(p, c) : NaN
beyond(p, c) = column("outside") == 1 ? of(p, c) : NaN

set multiplot layout 1, panels margins screen 64.0 / canvas_x, 1 - 16.0 / canvas_x, 58.0 / canvas_y, 1 - 84.0 / canvas_y spacing screen 62.0 / canvas_x
set label 1 title_text at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set logscale xy
set format "%g"
set xrange [low_kl:high_kl]
do for [p = 1:panels] {
    if (p > 1) { unset label 1; unset label 2 }
    set title panel_name[p] offset 0, -0.6 textcolor rgb ink
    set xlabel panel_unit[p] offset 0, 0.4
    if (p == 1) { set ylabel "exact KL, nats a scored token" offset 0.8, 0 } else { unset ylabel }
    set xrange [x_low[p]:x_high[p]]
    set yrange [low_kl:high_kl]
    plot data using (of(p, "predicted")):(of(p, "low")):(of(p, "high")) with filledcurves fc rgb pale fs transparent solid 0.45 noborder, \
         data using (of(p, "predicted")):(of(p, "calibrated")) with lines lc rgb grey lw 1.5, \
         (identity[p] ? x : NaN) with lines lc rgb ink dt 3, \
         data using (of(p, "predicted")):(of(p, "kl_nats")):(of(p, "kl_low")):(of(p, "kl_high")) with yerrorbars pt 0 lc rgb grey, \
         data using (inside(p, "predicted")):(inside(p, "kl_nats")) with points pt circle ps dot_size lc rgb blue, \
         data using (beyond(p, "predicted")):(beyond(p, "kl_nats")) with points pt ring ps dot_size lw 1.4 lc rgb orange
}
unset multiplot
