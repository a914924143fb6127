# SPDX-License-Identifier: Apache-2.0
# The divergence of each level of each factor against the mean of its factor's levels: after reports/draw/style.gp, from
# what studies.sh takes out of attribution.md. Needs: data.

stats data using "place" nooutput name "P"
set label 1 "KL of a 4-bit cache, times the mean of the choice's levels" at screen 0.02, 0.955 left font title_font textcolor rgb ink
set label 2 "24 ways of coding on 64 HellaSwag items (mode, own step: 42 on 32); 95 % intervals where the study has them" at screen 0.02, 0.905 left textcolor rgb grey
set lmargin at screen 0.3
set rmargin at screen 0.97
set tmargin at screen 0.86
set bmargin at screen 0.09
set logscale x
set xrange [0.2:5]
set xtics (0.25, 0.5, 1, 2, 4)
set yrange [P_max + 0.7:-0.7]
array paint[2] = [blue, orange]
colour(f) = paint[1 + int(f) % 2]
set arrow 1 from 1, graph 0 to 1, graph 1 nohead lc rgb grey lw 1 dt 2 back
plot data using (NaN):"place":ytic(strcol("name")) with points notitle, \
     data using "times":"place":"low":"high":(colour(column("factor"))) with xerrorbars pt -1 lc rgb variable lw 1.2 notitle, \
     data using "times":"place":(colour(column("factor"))) with points pt circle ps dot_size lc rgb variable notitle
