# SPDX-License-Identifier: Apache-2.0
# Predicted against measured step: the fit, and each run predicted with its context left out.
# Needs: data (columns of kvsim calibrate's table), title_text, and style.gp's variables.

set title title_text font title_font textcolor rgb ink
set xlabel "measured, ms a token"
set ylabel "predicted, ms a token"
set key top left reverse Left samplen 1
set size ratio -1
stats data using "measured_ms" nooutput name "M"
low = M_min * 0.95
high = M_max * 1.05
set xrange [low:high]
set yrange [low:high]
plot x with lines lc rgb pale lw 1.5 title "equal", \
     data using "measured_ms":"without_context_ms" with points pt circle ps dot_size lc rgb orange title "its context left out", \
     data using "measured_ms":"fitted_ms" with points pt ring ps dot_size lc rgb blue title "fitted"
