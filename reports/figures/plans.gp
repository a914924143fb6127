# SPDX-License-Identifier: Apache-2.0
# One tuned plan as each runtime serves it: after reports/draw/style.gp, from what studies.sh takes out of plans.md.
# Needs: data.

stats data using "nats" nooutput name "N"
stats data using (column("nats") - column("against")) nooutput name "Plan"
plan = Plan_median
set multiplot
set label 1 "A tuned plan of 5.00 bits, as each runtime can serve it" at screen 0.02, 0.94 left font title_font textcolor rgb ink
set label 2 "dashed: the plan itself; 24 items, SmolLM2-135M, 95 % intervals of the paired difference" at screen 0.02, 0.86 left textcolor rgb grey
set tmargin at screen 0.78
set bmargin at screen 0.19
set yrange [N_records - 0.4:-0.6]
set lmargin at screen 0.16
set rmargin at screen 0.62
set xlabel "KL to 16 bit, nats a scored token"
set xrange [0:0.1]
set arrow 1 from plan, graph 0 to plan, graph 1 nohead lc rgb grey lw 1 dt 2 back
plot data using (NaN):0:ytic(strcol("name")) with points notitle, \
     data using "nats":0:(plan + column("low")):(plan + column("high")) with xerrorbars pt -1 lc rgb blue lw 1.2 notitle, \
     data using "nats":0 with points pt circle ps dot_size lc rgb blue notitle
unset label
unset arrow
set lmargin at screen 0.67
set rmargin at screen 0.97
set format y ""
set xlabel "bits a cached value"
set xrange [4.5:8.5]
set xtics 1
set arrow 1 from 5, graph 0 to 5, graph 1 nohead lc rgb grey lw 1 dt 2 back
plot data using "bits":0 with points pt circle ps dot_size lc rgb orange notitle
unset multiplot
