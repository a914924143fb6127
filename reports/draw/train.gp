# SPDX-License-Identifier: Apache-2.0
# Learning curve of a controller: loss above accuracy, by epoch; the line stands where the network
# was taken. Columns: epoch, train_loss, valid_loss, valid_accuracy (%).
# Needs besides style.gp: data, best, title_text, subtitle_text.

set label 1 title_text at screen 16.0 / canvas_x, 1 - 22.0 / canvas_y left font title_font textcolor rgb ink
set label 2 subtitle_text at screen 16.0 / canvas_x, 1 - 44.0 / canvas_y left textcolor rgb grey
set multiplot
set lmargin at screen 74.0 / canvas_x
set rmargin at screen 1 - 16.0 / canvas_x
set xrange [0.5:*]
set key top right samplen 1.5 textcolor rgb ink
set tmargin at screen 1 - 70.0 / canvas_y
set bmargin at screen 1 - 290.0 / canvas_y
set arrow 1 from first best, graph 0 to first best, graph 1 nohead lc rgb pale lw 1.2 dt 3 back
set format x ""
set ylabel "loss a token" offset 0.5, 0
plot data using "epoch":"train_loss" with linespoints pt circle ps 0.5 * dot_size lc rgb blue title "training items", \
     data using "epoch":"valid_loss" with linespoints pt circle ps 0.5 * dot_size lc rgb orange title "validation items"
unset label 1
unset label 2
set tmargin at screen 1 - 310.0 / canvas_y
set bmargin at screen 58.0 / canvas_y
set format x "%g"
set xlabel "epoch" offset 0, 0.4
set ylabel "validation accuracy, %" offset 0.5, 0
unset key
plot data using "epoch":"valid_accuracy" with linespoints pt circle ps 0.5 * dot_size lc rgb orange
unset multiplot
