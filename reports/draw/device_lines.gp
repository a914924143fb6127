# SPDX-License-Identifier: Apache-2.0
# ms a token against context: measured points on the fitted model's lines, one a mix of widths or cache types.
# Needs: data (blocks of points and lines in turn, each headed by the mix), blocks (how many pairs),
# title_text, and style.gp's variables.

set title title_text font title_font textcolor rgb ink
set xlabel "context, tokens"
set ylabel "ms a token"
set key bottom right reverse Left samplen 2
set yrange [0:*]
array colour[6] = [ink, blue, green, orange, 0xCC79A7, 0x56B4E9]
named(mix) = strstrt(mix, '_') ? mix : mix . " bits" # a cache type is no number of bits
paint(i) = colour[1 + i % 6]
plot for [i = 0:blocks - 1] data index 2 * i + 1 using 1:2 with lines lc rgb paint(i) lw 1.4 title named(columnheader(1)), \
     for [i = 0:blocks - 1] data index 2 * i using 1:2 with points pt circle ps dot_size lc rgb paint(i) notitle
