// SPDX-License-Identifier: Apache-2.0
// The figure of a report's divergence by depth.
#ifndef KV_REPORTS_DRAW_DEPTHS_H
#define KV_REPORTS_DRAW_DEPTHS_H

#include "reports/draw/frontier.h"

// Draws depths, and depths_narrow for small screens, into the set's folder, where rows hold scored
// positions at two depths at least; else *drawn stays and *n_drawn too, which grows by one. At most
// 15 rows are drawn, those that come first. Errors: as kv_frontier_draw.
KV_MUST_CHECK int kv_depths_draw(const struct kv_frontier_set *set, struct kv_drawn *drawn,
                                 size_t *n_drawn, struct kv_error *e);

#endif
