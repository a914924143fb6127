# SPDX-License-Identifier: Apache-2.0
# Prints a man page, made of what the program says of itself: man.sh PROGRAM VERSION [specs]. Without a third word
# kvsim(1), the program and its commands; with it kvsim-specs(7), what a spec is, each policy and each format.
set -eu
kvsim=$1 version=$2 page=${3:-program}
COLUMNS=72 # a page's text has 80 columns less its margins
export COLUMNS
plain() { sed 's/\\/\\e/g; s/-/\\-/g; s/^\([.'\'']\)/\\\&\1/'; }
verbatim() { printf '.nf\n' && plain && printf '.fi\n'; }

if [ "$page" = specs ]; then
    cat <<ROFF
.TH KVSIM\\-SPECS 7 "" "kvsim $version" "Miscellaneous"
.nh
.ad l
.SH NAME
kvsim\\-specs \\- how kvsim(1) names a policy for the precision of a KV cache and the format that stores it
.SH DESCRIPTION
A spec is
.IR POLICY @ FORMAT ,
each of them a name with or without keys:
.PP
.nf
static:bits=4@sym
static:k=8,v=4@asym:group=32
layerwise:k=4/2@sym
shuffle(threshold:feature=mean,bits=2/4/8/16):within=item@sym
static:bits=4@hadamard(q4_0)
.fi
.PP
The policy decides the width of each cached value: bits a code, which the format offers. The format says how a width is
stored: grid, scales, groups, order. A name in brackets is wrapped by the one before them. What is not said is at its
default.
.PP
Lists inside a spec are written 2/4/8. Where several specs are taken, braces and ranges stand for all that they name:
static:bits={2,4}@{sym,asym:group=32} is four specs, oracle:bits=2..6+0.5 is nine. A policy built elsewhere is named by
its file: ./mine.so:cut=4@sym.
.SS Spellings
A store keeps the canonical spelling: all keys, sorted, and the digest of a file that the policy comes from. Tables print
the label: keys at their default are left out, static:k=4,v=4 is static:bits=4, a file's digest is its first four digits,
and a list of more than eight numbers is its mean, the last with four digits of the lists' digest:
layerwise:by=head,k~3.41,v~2.59#1c0f. A name given by
.B \\-\\-as
.I NAME=SPEC
replaces the label. Whatever asks for a stored spec takes each of these, and any spelling that means the same.
.SS Sweep files
A spec or an expansion a line; # begins a comment. Behind a single spec
.BI as= NAME
names it.
.SH POLICIES
ROFF
    "$kvsim" list policies --tsv | sed 1d | cut -f1 | while read -r name; do
        printf '.SS %s\n' "$(echo "$name" | plain)"
        "$kvsim" describe "$name" | sed '/^kind  /d; /^name  /d' | verbatim
    done
    printf '.SH FORMATS\n'
    "$kvsim" list formats --tsv | sed 1d | cut -f1 | while read -r name; do
        printf '.SS %s\n' "$(echo "$name" | plain)"
        "$kvsim" describe "$name" | sed '/^kind  /d; /^name  /d' | verbatim
    done
    printf '.SH SEE ALSO\n.BR kvsim (1)\n'
    exit
fi

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
COLUMNS=1000 "$kvsim" --help | awk '/^  [a-z][a-z-]*  / {print $1}' | while read -r command; do
    printf '.SH KVSIM %s\n' "$(echo "$command" | tr a-z A-Z | plain)"
    "$kvsim" "$command" --help | awk '/^options of every command/ {skip = 1} /^(example|columns of)/ {skip = 0} !skip' | verbatim
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
.TP
.B COLUMNS
width that text is fitted to, where standard output is no terminal
.SH FILES
.B kvsim help \-\-bash
prints the completion script that
.B make install
puts where bash finds it.
.SH EXAMPLE
.nf
kvsim record \-m model.gguf \-t samples \-\-keep final,kv \-o samples.trace
kvsim sweep samples.trace 'static:bits={2,4,8,16}@{sym,asym:group=32}' \-m model.gguf \-\-db results.db
kvsim show \-\-db results.db
.fi
.SH SEE ALSO
.BR kvsim\-specs (7)
ROFF
