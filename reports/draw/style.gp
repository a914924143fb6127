# SPDX-License-Identifier: Apache-2.0
# The look that all figures share: fonts, colour-blind safe colours (Okabe and Ito), grid, symbols.
# Needs: format ("svg", "png" or "pdf"), name, canvas_x and canvas_y in pixels; width_mm where it is for print.

if (!exists("width_mm")) width_mm = 0
inch = width_mm > 0 ? width_mm / 25.4 / canvas_x : 0.01 # of a pixel in print
scale = width_mm > 0 ? 300 * inch : 2                   # of a pixel in PNG: 300 an inch of print
if (format eq "svg") {
    set terminal svg size canvas_x, canvas_y noenhanced font "DejaVu Sans,Verdana,sans-serif,12" background "white" linewidth 1
} else { if (format eq "pdf") {
    set terminal pdfcairo size canvas_x * inch, canvas_y * inch noenhanced font "DejaVu Sans,12" background "white" linewidth 120 * inch fontscale 54 * inch pointscale 90 * inch
} else {
    set terminal pngcairo size scale * canvas_x, scale * canvas_y noenhanced font "DejaVu Sans,9" background "white" fontscale scale linewidth scale pointscale scale
} }
# The PNG terminal counts in points of which 96 pixels hold 72.
title_font = format eq "png" ? ",10.5" : ",14"
small_font = format eq "png" ? ",7.5" : ",10"
set encoding utf8
set output name . "." . format
set datafile separator "\t"
set datafile missing ""
set datafile columnheaders

blue = 0x0072B2
orange = 0xD55E00
green = 0x009E73
grey = 0x8A8A8A
pale = 0xC9C9C9
ink = 0x222222

set border 3 lc rgb ink lw 1
set tics out nomirror scale 0.6 textcolor rgb ink
set grid lc rgb 0xEBEBEB lt 1 lw 0.7
unset key

# Circles for policies that could run, diamonds for oracles; filled, or hollow where the accuracy
# was measured at another context than the latency.
circle = 7
ring = 6
diamond = 13
rhomb = 12
dot_size = 0.9

# Panels: a column's value in rows of panel p (others are left out), where names of one side stand,
# and what colour they have.
of(p, c) = column("panel") == p ? column(c) : NaN
label_at(p, side) = column("justify") == side ? of(p, "label_x") : NaN
name_colour(frontier) = frontier == 1 ? 0xA84600 : ink
