# SPDX-License-Identifier: Apache-2.0
# Names that two headers give: structs, enums, unions, macros and functions. Headers are arguments.

function give(name) {
    if (!(name in first)) first[name] = FILENAME
    else if (first[name] != FILENAME) print name ": " first[name] ", " FILENAME
}

/^(struct|enum|union) [a-z_0-9]+ \{/ { give($2) }
/^#define / { sub(/\(.*/, "", $2); give($2) }
# A function is declared on a line that ends in its first "(": static ones are a header's own.
/^[a-zA-Z]/ && !/^(static|typedef|struct [a-z_0-9]+ \{|enum|extern)/ && match($0, /kv_[a-z_0-9]+\(/) {
    give(substr($0, RSTART, RLENGTH - 1))
}
