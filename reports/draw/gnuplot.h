// SPDX-License-Identifier: Apache-2.0
// Runs gnuplot on a figure's script and data: the one place where a picture is made.
//
//     struct kv_gnuplot g = {.name = "headroom", .dir = "work/figures", .data = "x\ty\n1\t2\n",
//                            .canvas_x = 1000, .canvas_y = 620, .settings = "budgets = 3\n"};
//     if (kv_gnuplot_draw(&g, &e)) ...
//
// A figure is a pair NAME.c, which makes the data and the settings, and NAME.gp, which draws them.
#ifndef KV_REPORTS_DRAW_GNUPLOT_H
#define KV_REPORTS_DRAW_GNUPLOT_H

#include "policies/policy.h"

struct kv_gnuplot {
    const char *name;          // of the script reports/draw/NAME.gp
    const char *file;          // of what is written, without its ending; NULL = name
    const char *dir;           // where; exists
    const char *command;       // that draws it, for the script's first line; NULL = not said
    double canvas_x, canvas_y; // pixels of the SVG; 0 = the settings say
    double width_mm;           // of the canvas in print; 0 = a figure for screens
    const char *settings;      // gnuplot lines that come before style.gp and NAME.gp
    const char *data;          // TSV with a header, read by the script as `data`
    const char *formats;       // "svg,png" and "pdf" as wanted; NULL = svg and png
};

// Writes DIR/FILE.tsv, FILE.gp, which `gnuplot FILE.gp` draws again there, and a picture of each
// format. Errors: gnuplot is missing or fails (its first line is quoted), a file that cannot be
// written.
KV_MUST_CHECK int kv_gnuplot_draw(const struct kv_gnuplot *g, struct kv_error *e);

// The formats of a list that gnuplot draws here. Errors: KV_EUSAGE names them.
KV_MUST_CHECK int kv_gnuplot_formats(const char *list, struct kv_error *e);

// A copy of s that is safe inside a gnuplot string or data field: quotes, backslashes, control
// characters and invalid UTF-8 become harmless look-alikes. Caller frees.
char *kv_gnuplot_text(const char *s);

#endif
