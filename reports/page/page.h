// SPDX-License-Identifier: Apache-2.0
// The report's page: verdicts, figures, tables and policies of a store in one HTML file that needs
// nothing else.
#ifndef KV_REPORTS_PAGE_PAGE_H
#define KV_REPORTS_PAGE_PAGE_H

#include "reports/draw/frontier.h"
#include "sim/base/memory.h"
#include "analysis/claims/verdicts.h"
#include "analysis/results/widths.h"

// Rows that are drawn together, with the names of their figures: one recording, one setting.
struct kv_page_part {
    struct kv_frontier_set set;
    struct kv_drawn figures[2];
    size_t n_figures;
};

// A spec of any part, with what it decided where a recording could be asked.
struct kv_page_policy {
    const struct kv_row *row;     // its first
    const struct kv_trace *trace; // that was asked; NULL = none could be
    struct kv_widths widths;
};

struct kv_tokenizer;
struct kv_page {
    const struct kv_rows *all;
    const struct kv_page_part *parts; // those of a recording beside each other
    size_t n_parts;
    const struct kv_page_policy *policies;
    size_t n_policies;
    const struct kv_verdict *verdicts; // those of a claim beside each other
    size_t n_verdicts;
    const struct kv_tokenizer *tokenizer; // of the recordings; NULL = tokens are drawn without text
    char tokenizer_digest[17];
    struct kv_store *store;
    const char *dir, *db; // figures are read from DIR/NAME.svg; the store, for the commands
    uint64_t seed;
};

// Writes DIR/index.html. All texts from store, recording and figures are escaped.
KV_MUST_CHECK int kv_page_write(const struct kv_page *p, struct kv_error *e);

// ---- its sections (page_verdict.c, page_table.c, page_redraws.c, ...) -------------

// What the store says of each claim; claims of which it says nothing are only named.
void kv_page_verdicts(struct kv_text *t, const struct kv_page *p);

// Results of a part, sortable, each row naming its policy's section, and the ranking by scorer.
void kv_page_table(struct kv_text *t, const struct kv_page *p, const struct kv_page_part *part);
void kv_page_scorers(struct kv_text *t, const struct kv_page_part *part);
// How much of an item's spread is rounding, where the store holds redraws; else nothing.
void kv_page_redraws(struct kv_text *t, const struct kv_page_part *part);
// A section for each policy: what it is, how it does everywhere, what it decided, an item drawn.
void kv_page_policies(struct kv_text *t, const struct kv_page *p);
// Where everything comes from and how to make it again.
KV_MUST_CHECK int kv_page_provenance(struct kv_text *t, const struct kv_page *p,
                                     struct kv_error *e);
void kv_page_rebuild(struct kv_text *t, const struct kv_page *p);

// The number of a spec's section; 0 = it has none.
size_t kv_page_policy_number(const struct kv_page *p, const char *spec);
// "exact replay, read inline": what a part's rows share, in words.
void kv_page_setting(struct kv_text *t, const struct kv_page_part *part);

#endif
