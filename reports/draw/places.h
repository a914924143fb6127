// SPDX-License-Identifier: Apache-2.0
// The figure of a report's needle and recall tasks: a heat map by length and depth for each policy.
#ifndef KV_REPORTS_DRAW_PLACES_H
#define KV_REPORTS_DRAW_PLACES_H

#include "reports/draw/frontier.h"

// Draws places, and places_narrow for small screens, into the set's folder, where rows have places;
// else *drawn stays and *n_drawn too, which grows by one. The 16-bit run comes first, then at most
// 14 rows, those that come first. Errors: as kv_frontier_draw.
KV_MUST_CHECK int kv_places_draw(const struct kv_frontier_set *set, struct kv_drawn *drawn,
                                 size_t *n_drawn, struct kv_error *e);

#endif
