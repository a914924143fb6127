# SPDX-License-Identifier: Apache-2.0
# What the model misses: (predicted - measured) / measured against context, in %.
# Needs: data (columns of kvsim calibrate's table), title_text, and style.gp's variables.

set title title_text font title_font textcolor rgb ink
set xlabel "context, tokens"
set ylabel "predicted less measured, % of the step"
set key top left reverse Left samplen 1
set logscale x 2
set offsets graph 0.03, graph 0.03, graph 0.1, graph 0.1
error(prediction) = 100 * (column(prediction) / column("measured_ms") - 1)
plot 0 with lines lc rgb pale lw 1.5 notitle, \
     data using "context":(error("without_context_ms")) with points pt circle ps dot_size lc rgb orange title "its context left out", \
     data using "context":(error("without_mix_ms")) with points pt diamond ps dot_size lc rgb green title "its mix left out", \
     data using "context":(error("fitted_ms")) with points pt ring ps dot_size lc rgb blue title "fitted"
