// SPDX-License-Identifier: Apache-2.0
// How much room a text takes in DejaVu Sans, the font that figures ask for.
//
//     double pixels = kv_text_width("static:bits=4@sym", 12);
#ifndef KV_REPORTS_DRAW_FONT_H
#define KV_REPORTS_DRAW_FONT_H

#include "policies/policy.h"

// Size in pixels of the text of figures, and how far above and below its baseline DejaVu Sans
// reaches, in parts of the size (ascender of "l" 0.760, descender of "g" 0.236).
enum { KV_TEXT_SIZE = 12 };
#define KV_TEXT_ABOVE 0.76
#define KV_TEXT_BELOW 0.24

// Width of UTF-8 text in the unit of `size`, by the font's own advance widths.
double kv_text_width(const char *s, double size);
// A copy of s that is at most `room` wide; what it loses at its end an ellipsis stands for. Caller
// frees.
char *kv_text_fit(const char *s, double size, double room);

#endif
