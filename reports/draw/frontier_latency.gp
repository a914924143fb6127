# SPDX-License-Identifier: Apache-2.0
# Accuracy against the predicted time of a decode step, a panel for each context length.

do for [p = 1:panels] {
    x_title[p] = sprintf("ms a token at a context of %g tokens", context[p])
    y_title[p] = "accuracy, %"
    y_format[p] = "%g"
}
