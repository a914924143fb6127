// SPDX-License-Identifier: Apache-2.0
// Lists as option values: "2,4,8", names or numbers.
#ifndef KV_CLI_LISTS_H
#define KV_CLI_LISTS_H

#include "sim/cli/options.h"
#include "sim/cost/cost.h"

// The elements of an option's value, or of its default. Free with kv_list_free of spec.h.
size_t kv_opt_list(const struct kv_cli *c, const char *name, char ***list);
// The same as whole numbers in [min, max], at most `room`. Errors: KV_EUSAGE names the element.
KV_MUST_CHECK int kv_opt_counts(const struct kv_cli *c, const char *name, long min, long max,
                                uint32_t *out, size_t room, size_t *n, struct kv_error *e);
// The same as any numbers in [min, max].
KV_MUST_CHECK int kv_opt_numbers(const struct kv_cli *c, const char *name, double min, double max,
                                 double *out, size_t room, size_t *n, struct kv_error *e);
// "field=value" texts of an option that may be repeated, or hold several after commas; none when it
// is not given. Free with kv_list_free. Errors: KV_EUSAGE names one that is no such text.
KV_MUST_CHECK int kv_opt_conditions(const struct kv_cli *c, const char *name, char ***list,
                                    size_t *n, struct kv_error *e);
// Opens the devices an option lists, or all shipped ones. Free with kv_devices_free.
KV_MUST_CHECK int kv_opt_devices(const struct kv_cli *c, const char *name,
                                 struct kv_device ***devices, size_t *n, struct kv_error *e);
void kv_devices_free(struct kv_device **devices, size_t n);

#endif
