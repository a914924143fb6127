# SPDX-License-Identifier: Apache-2.0
# What a recording assumes against what a run does: after reports/draw/style.gp, from what studies.sh takes out of
# assumptions.md. Needs: data.

stats data using "run" nooutput name "R"
set label 1 "KL to 16 bit, nats a scored token: as assumed, and as a device would run" at screen 0.02, 0.94 left font title_font textcolor rgb ink
set label 2 "assumed: decided from the recorded run (widths), each token coded once (formats)" at screen 0.03, 0.86 left offset 0.9, -0.22 point pt ring ps dot_size lc rgb blue textcolor rgb ink
set label 3 "as it runs: decided from the coarse run itself, the prompt and all later tokens coded" at screen 0.03, 0.79 left offset 0.9, -0.22 point pt circle ps dot_size lc rgb orange textcolor rgb ink
set lmargin at screen 0.3
set rmargin at screen 0.97
set tmargin at screen 0.72
set bmargin at screen 0.12
set logscale x
set format x "%g"
set xrange [0.0007:4]
set yrange [R_records - 0.4:-0.6]
plot data using (NaN):0:ytic(strcol("name")) with points notitle, \
     data using "assumed":0:(column("run") - column("assumed")):(0) with vectors nohead lc rgb pale lw 1.5 notitle, \
     data using "assumed":0 with points pt ring ps dot_size lc rgb blue lw 1.3 notitle, \
     data using "run":0 with points pt circle ps dot_size lc rgb orange notitle
