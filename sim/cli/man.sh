# SPDX-License-Identifier: Apache-2.0
# Prints the man page kvsim(1), made of the program's own help texts: man.sh PROGRAM VERSION
set -eu
kvsim=$1 version=$2
plain() { sed 's/\\/\\e/g; s/-/\\-/g; s/^\([.'\'']\)/\\\&\1/'; }
verbatim() { printf '.nf\n' && plain && printf '.fi\n'; }

cat <<ROFF
.TH KVSIM 1 "" "kvsim $version" "User Commands"
.SH NAME
kvsim \\- replays KV\\-cache precision policies against a recorded language model
.SH SYNOPSIS
.B kvsim
.I COMMAND
[options]
.SH DESCRIPTION
kvsim records a language model once over a benchmark, replays any policy for the precision of its KV
cache against the recording as a device would store it, prices it on a device, and draws accuracy
against time and memory. Data goes to standard output, talk to standard error.
.SH COMMANDS AND COMMON OPTIONS
ROFF
"$kvsim" --help | sed 1,4d | verbatim
"$kvsim" --help | awk '/^  [a-z][a-z-]*  / {print $1}' | while read -r command; do
    printf '.SH KVSIM %s\n' "$(echo "$command" | tr a-z A-Z | plain)"
    "$kvsim" "$command" --help | awk '/^options of every command/ {skip = 1} /^example/ {skip = 0} !skip' | verbatim
done
cat <<'ROFF'
.SH EXIT STATUS
0 done, 1 could not, 2 wrong usage. Each error is one sentence on standard error.
.SH ENVIRONMENT
.TP
.B KVSIM_MODEL
the model to replay with where
.B \-m
is not given
.TP
.B KVSIM_CPU
base, avx2 or avx512: a lower level of the CPU's instructions than the best one
.SH EXAMPLE
.nf
kvsim record \-m model.gguf \-t samples \-\-keep final,kv \-o samples.trace
kvsim sweep samples.trace 'static:bits={2,4,8,16}@{sym,asym:group=32}' \-m model.gguf \-\-db results.db
kvsim show \-\-db results.db
.fi
ROFF
