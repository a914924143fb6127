// SPDX-License-Identifier: Apache-2.0
// What a report's page is made of: parts (one recording and setting each), policies, verdicts.
#ifndef KV_REPORTS_PAGE_PART_H
#define KV_REPORTS_PAGE_PART_H

#include "analysis/claims/verdicts.h"
#include "analysis/results/widths.h"
#include "analysis/studies/generation.h"
#include "reports/draw/frontier.h"
#include "sim/base/memory.h"

// Rows that are drawn together, with the names of their figures: one recording, one setting.
struct kv_page_part {
    struct kv_frontier_set set;
    struct kv_drawn figures[4];
    size_t n_figures;
    char *paper; // the files of the panel for a paper; NULL = none
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
    const struct kv_generation_table *generations; // drawn in dir; NULL or empty = none
    struct kv_store *store;
    const char *dir, *db; // figures are read from DIR/NAME.svg; the store, for the commands
    uint64_t seed;
};

// The number of a spec's section; 0 = it has none.
size_t kv_page_policy_number(const struct kv_page *p, const char *spec);
// "exact replay, read inline": what a part's rows share, in words.
void kv_page_setting(struct kv_text *t, const struct kv_page_part *part);

#endif
