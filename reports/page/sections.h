// SPDX-License-Identifier: Apache-2.0
// The sections of a report's page, a source file each, in the order in which they are read.
#ifndef KV_REPORTS_PAGE_SECTIONS_H
#define KV_REPORTS_PAGE_SECTIONS_H

#include "reports/page/part.h"

// For each recording that was replayed exactly the smallest cache that is near to 16 bit, its cost
// and how sure that is; what the page is made of.
void kv_page_lead(struct kv_text *t, const struct kv_page *p);
// What the store says of each claim; claims of which it says nothing are only named.
void kv_page_verdicts(struct kv_text *t, const struct kv_page *p);

// Results of a part, sortable, each row naming its policy's section, and the ranking by scorer.
void kv_page_table(struct kv_text *t, const struct kv_page *p, const struct kv_page_part *part);
void kv_page_scorers(struct kv_text *t, const struct kv_page_part *part);
// How much of an item's spread is rounding, where the store holds redraws; else nothing.
void kv_page_redraws(struct kv_text *t, const struct kv_page_part *part);
// Scored positions of text windows by depth, where the store holds them; else nothing.
void kv_page_depths(struct kv_text *t, const struct kv_page_part *part);
// Needle and recall tasks by length and depth, where the store holds them; else nothing.
void kv_page_places(struct kv_text *t, const struct kv_page_part *part);
// One of the two widths in which a figure is drawn, read from DIR/NAME.svg; style decides which is
// seen. label: what it shows, in words.
KV_MUST_CHECK int kv_page_drawing(struct kv_text *t, const struct kv_page *p, const char *name,
                                  double plot_y, const char *class, const char *label,
                                  struct kv_error *e);
// A section for each model and task that was generated from, with its figure; else nothing.
KV_MUST_CHECK int kv_page_generations(struct kv_text *t, const struct kv_page *p,
                                      struct kv_error *e);
// An article for each policy, nothing where there is none: what it is, how it does everywhere, what
// it decided, an item drawn.
void kv_page_policies(struct kv_text *t, const struct kv_page *p);
// Where everything comes from and how to make it again.
KV_MUST_CHECK int kv_page_provenance(struct kv_text *t, const struct kv_page *p,
                                     struct kv_error *e);
void kv_page_rebuild(struct kv_text *t, const struct kv_page *p);

#endif
