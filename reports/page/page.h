// SPDX-License-Identifier: Apache-2.0
// The report's page: verdicts, figures, tables and policies of a store in one HTML file that needs
// nothing else.
#ifndef KV_REPORTS_PAGE_PAGE_H
#define KV_REPORTS_PAGE_PAGE_H

#include "reports/page/part.h"

// Writes DIR/index.html. All texts from store, recording and figures are escaped.
KV_MUST_CHECK int kv_page_write(const struct kv_page *p, struct kv_error *e);

#endif
