#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Downloads the official benchmark files into a folder and checks each file's sha256.
#
#     sh traces/fetch.sh data
#
# Needs curl or wget, unzip or python3, and sha256sum. A file that is there with its checksum is
# kept.
set -u

dir=${1:-data}
here=$dir/.fetch
failed=0
missed= # names that could not be downloaded, for one line at the end

HELLASWAG=https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl
ARC=https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip
OPENBOOKQA=https://s3-us-west-2.amazonaws.com/ai2-website/data/OpenBookQA-V1-Sep2018.zip
GSM8K=https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data
WIKITEXT=https://huggingface.co/datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip

# name in the folder | sha256 | URL | member of the zip
files="
hellaswag_val.jsonl|0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588|$HELLASWAG|
openbookqa_test.jsonl|feb2bd9bfa6161dca4c44ce90e51e8cdada83eb5061407fcdc5005e44aaf2313|$OPENBOOKQA|OpenBookQA-V1-Sep2018/Data/Main/test.jsonl
openbookqa_dev.jsonl|a08f720be757a0f0b6aaf8e1e1162c2b05a882c9c031d2559ba3d5467d023466|$OPENBOOKQA|OpenBookQA-V1-Sep2018/Data/Main/dev.jsonl
openbookqa_train.jsonl|388ce25926fa33b573ba6556d7245a6185f612dedf919871b6acb9340c8497a5|$OPENBOOKQA|OpenBookQA-V1-Sep2018/Data/Main/train.jsonl
arc_challenge_test.jsonl|9fa8ffb3e3a1f88cb302d53dd95aae81e39209ad9bcf974376b319d8fd35717c|$ARC|ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Test.jsonl
arc_challenge_dev.jsonl|55224364abd2477f66a9a57c5cbef109fb71d83019aa5e37aec0e7ab757746ca|$ARC|ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Dev.jsonl
arc_challenge_train.jsonl||$ARC|ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Train.jsonl
arc_easy_test.jsonl|ce32a0774b4beb1977d2c6b16dda5dd2b24fdc9c7f506882c452678676bd09be|$ARC|ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl
gsm8k_test.jsonl|3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14|$GSM8K/test.jsonl|
gsm8k_train.jsonl|17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465|$GSM8K/train.jsonl|
wikitext2_test.raw.txt|173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08|$WIKITEXT|wikitext-2-raw/wiki.test.raw
"

has_sum() { # FILE SHA256; an unknown sum is satisfied by any file
    [ -s "$1" ] && { [ -z "$2" ] || [ "$(sha256sum < "$1" | cut -d' ' -f1)" = "$2" ]; }
}

download() { # URL FILE
    if command -v curl > /dev/null; then
        curl --fail --silent --location --connect-timeout 20 --output "$2" "$1"
    elif command -v wget > /dev/null; then
        wget --quiet --tries=2 --timeout=20 --output-document="$2" "$1"
    else
        echo "fetch: neither curl nor wget is installed; install one and try again" >&2
        exit 1
    fi
}

extract() { # ZIP MEMBER FILE
    if command -v unzip > /dev/null; then
        unzip -p "$1" "$2" > "$3"
    else
        python3 -c 'import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' "$1" "$2" > "$3"
    fi
}

fetch() { # NAME SHA256 URL MEMBER
    has_sum "$dir/$1" "$2" && return 0
    archive=$here/$(basename "$3")
    if [ ! -s "$archive" ]; then
        if [ -e "$archive.failed" ] || ! download "$3" "$archive"; then
            rm -f "$archive"
            touch "$archive.failed"
            missed="$missed $1"
            return 1
        fi
    fi
    if [ -n "$4" ]; then
        extract "$archive" "$4" "$here/$1" || { echo "fetch: $archive holds no $4" >&2; return 1; }
    else
        mv "$archive" "$here/$1.new" && mv "$here/$1.new" "$here/$1"
    fi
    if ! has_sum "$here/$1" "$2"; then
        echo "fetch: $1 from $3 has another sha256 than $2; it was not kept" >&2
        rm -f "$here/$1"
        return 1
    fi
    mv "$here/$1" "$dir/$1" && echo "fetch: $dir/$1"
}

mkdir -p "$here" || exit 1
while IFS='|' read -r name sum url member; do
    [ -n "$name" ] || continue
    fetch "$name" "$sum" "$url" "$member" || failed=1
done << EOF
$files
EOF
rm -rf "$here"
[ -z "$missed" ] || echo "fetch: could not be downloaded (are you offline?):$missed" >&2
exit $failed
