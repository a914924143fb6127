// SPDX-License-Identifier: Apache-2.0
// What rows say by place: of tasks whose facts stand at a depth of a context of some length
// (needle, recall), how often the answer is what greedy decoding writes, by how much it leads, and
// where that first differs from 16 bit.
#ifndef KV_ANALYSIS_RESULTS_PLACES_H
#define KV_ANALYSIS_RESULTS_PLACES_H

#include "analysis/stats/stats.h"
#include "sim/store/store.h"

KV_BEGIN_DECLS

// Where a fact stands: in so many tokens, or among so many pairs (the other is 0), behind `depth` %
// of them.
struct kv_fact_place {
    uint32_t length, pairs;
    double depth;
};
// Reads an item's source, "length=512,depth=25" or "pairs=8,depth=25". False: it names no place.
bool kv_place_read(const char *source, struct kv_fact_place *p);

// One item there: 1 where all tokens of the answer are the likeliest, else 0 (a share where it was
// redrawn; NAN: unknown), and the log-prob of the answer minus the best other choice's, nats.
struct kv_place_item {
    struct kv_fact_place place;
    double match, match16, margin, margin16;
};

// Below this share of matches under 16 bit, over all depths of a length, a policy cannot lose much:
// such lengths are judged by the margin alone.
#define KV_PLACE_LEAST_MATCH 0.3
#define KV_PLACE_LEVEL 0.01 // of what counts as a difference

struct kv_place_result {
    struct kv_fact_place place;
    size_t n;
    double match, match16;        // means; NAN where unknown
    struct kv_paired match_to16;  // exact McNemar
    double match_holm;            // adjusted over the row's places; NAN: judged by the margin alone
    double margin, margin16;      // means, nats
    struct kv_mean margin_to16;   // paired difference
    double margin_p, margin_holm; // of the paired t test, and adjusted over the row's places
};
// By length, then depth. Items with a margin that is NAN are left out. *n_out: how many. Caller
// frees.
struct kv_place_result *kv_places_judge(const struct kv_place_item *items, size_t n, size_t *n_out);

// The first place (shortest context, then least depth) that differs, by match or by margin. n:
// none.
size_t kv_places_first(const struct kv_place_result *p, size_t n, bool by_match);
// That in words, with what a match could have told: "by match first at length 512, depth 25 %
// (p 0.003); by margin nowhere; ...". Caller frees.
char *kv_places_text(const struct kv_place_result *p, size_t n);

#define KV_PLACES_LEGEND                                                                           \
    "match: items whose answer greedy decoding writes whole (a guess: 1 in 90,000); margin: "      \
    "log-prob of the answer "                                                                      \
    "minus "                                                                                       \
    "the best other choice's, nats, its difference to 16 bit with a 95 %% t interval; p: of "      \
    "exact "                                                                                       \
    "McNemar and paired t tests against 16 bit, Holm-adjusted over the places of a row"

struct kv_row;
// Judges a row whose items name places (items: the row's). Part of kv_rows_open.
KV_MUST_CHECK int kv_row_read_places(struct kv_row *row, const struct kv_item_result *items,
                                     size_t n, struct kv_store *s, struct kv_error *e);

KV_END_DECLS

#endif
