# SPDX-License-Identifier: Apache-2.0
# Draws divergence at about 4 and about 8 bits, families side by side: after reports/draw/style.gp, from what studies.sh
# takes out of families.md. Needs: data.

array models[3] = ["SmolLM2-135M", "Qwen2.5-Coder-0.5B", "Gemma-3-270m"]
array colours[3] = [blue, orange, green]
array marks[3] = [7, 9, 5]
array titles[2] = ["codes of 4 bits; plans of 5 allocated", "codes of 8 bits"]
array from[2] = [0, 8]
array places[2] = [8, 7]

# The families of a row stand a little apart. An interval may reach below zero, where a logarithm has no place.
height(p, m) = places[p] - column("place") + (2 - m) * 0.2
kl(m) = column(sprintf("kl%d", m))
lower(m) = column(sprintf("low%d", m)) > 0.3 * kl(m) ? column(sprintf("low%d", m)) : 0.3 * kl(m)

set multiplot layout 1, 2 margins 0.19, 0.985, 0.1, 0.8 spacing 0.2, 0
set label 1 "KL to the 16-bit run, nats a scored token: the same 300 HellaSwag items, 95 % intervals" at screen 0.015, 0.955 left font ",14" textcolor rgb ink
set logscale x
set format x "%g"
do for [m = 1:3] {
    set label 1 + m models[m] at screen 0.02 + 0.2 * (m - 1), 0.895 left offset 0.9, -0.22 point pt marks[m] ps dot_size lc rgb colours[m] textcolor rgb ink
}
do for [p = 1:2] {
    set title titles[p] textcolor rgb ink
    set yrange [-0.6:places[p] - 0.4]
    plot data every ::from[p]::(from[p] + places[p] - 1) using (NaN):(height(p, 2)):ytic(strcol("name")) with points notitle, \
         for [m = 1:3] data every ::from[p]::(from[p] + places[p] - 1) using (kl(m)):(height(p, m)):(lower(m)):(column(sprintf("high%d", m))) \
             with xerrorbars pt marks[m] ps dot_size lc rgb colours[m] notitle
    unset label
}
unset multiplot
