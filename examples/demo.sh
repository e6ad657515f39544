#!/bin/bash
# SPDX-License-Identifier: MIT
#
# demo.sh BUILD_DIR [FILE]
#
# Four unrelated workers count the words of FILE into one shared table, a fifth process watches, and
# one worker is SIGKILLed inside its critical section. The total must be that of wc(1) all the same.
# Without FILE: 40 MB of the text that Debian has under /usr/share.
# LK_DEMO_DELAY_MS: how long a worker rests after each chunk, so that one can watch (default 120).
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: demo.sh BUILD_DIR [FILE]" >&2
    exit 64
fi
build=$(realpath -e -- "$1")
file=${2:+$(realpath -e -- "$2")}
if [ -n "$file" ] && { [ ! -f "$file" ] || [ ! -r "$file" ] || [ ! -s "$file" ]; }; then
    echo "demo: '$file' has to be a text file that can be read and is not empty" >&2
    exit 65
fi
delay=${LK_DEMO_DELAY_MS:-120}
chunks=240
PATH=$build/bin:$PATH

dir=$(mktemp -d "${TMPDIR:-/tmp}/lockkeeper-demo.XXXXXX")
export LOCKKEEPER_SOCKET=$dir/broker.sock
broker=

# Whatever happens: nothing stays behind. A stopped process does not notice any signal but KILL.
cleanup() {
    local pid
    for pid in $(jobs -p); do
        [ "$pid" = "$broker" ] || kill -KILL "$pid" 2>/dev/null || true
    done
    if [ -n "$broker" ]; then
        kill -TERM "$broker" 2>/dev/null || true
        wait "$broker" 2>/dev/null || true
    fi
    wait
    rm -rf -- "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

erase=
[ ! -t 2 ] || erase=$'\r\033[K' # what the progress line left there
say() { printf '%s%s\n' "$erase" "$*" >&2; }
fail() {
    say "demo: FAILED: $*"
    for log in "$dir"/*.log; do
        [ ! -s "$log" ] || sed "s|^|  $(basename "$log"): |" "$log" >&2
    done
    exit 1
}

# until_true SECONDS COMMAND...: tries again and again.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt "$end" ] || return 1
        sleep 0.02
    done
}

# The text: a copy, since a segment's file is opened for writing too.
make_text() {
    local bytes=$((40 << 20))
    if [ -n "$file" ]; then
        cp -- "$file" "$dir/text"
        chmod u+rw "$dir/text"
        return
    fi
    find /usr/share/common-licenses /usr/share/perl /usr/share/perl5 /usr/share/doc -type f \
        ! -name '*.gz' ! -name '*.png' -readable -print0 2>/dev/null | LC_ALL=C sort -z |
        { xargs -0 cat -- 2>/dev/null || true; } | { head -c "$bytes" || true; } >"$dir/text"
    [ -s "$dir/text" ] || fail "no text under /usr/share; name a FILE"
    while [ "$(stat -c %s "$dir/text")" -lt "$bytes" ]; do
        cp "$dir/text" "$dir/more"
        head -c $((bytes - $(stat -c %s "$dir/text"))) "$dir/more" >>"$dir/text"
        rm "$dir/more"
    done
}

is_stopped() { [ "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1)" = T ]; }
queue_is_there() { [ "$(lockkeeper ls wordcount.table --raw --no-headings -o STATE | grep -c wait)" -ge 3 ]; }

make_text
expected=$(LC_ALL=C wc -w <"$dir/text")

lockkeeperd --socket "$LOCKKEEPER_SOCKET" 2>"$dir/broker.log" &
broker=$!
until_true 10 eval 'lockkeeper where >"$dir/where.log" 2>&1' || fail "the broker does not answer"

say "1. A file becomes a segment, and a table is made beside it:"
say "   $(wordcount_create "$dir/text" "$chunks")"
wordcount_watch >"$dir/result" &
watcher=$!

say "2. Four workers, started one by one. The second will stop inside its critical section."
workers=()
for i in 1 2 3 4; do
    options=(--delay "$delay")
    [ $i -ne 2 ] || options+=(--stop-in 8)
    LC_ALL=C wordcount_worker "${options[@]}" >"$dir/worker$i.log" 2>&1 &
    workers+=("$!")
    sleep 0.2
done
victim=${workers[1]}

until_true 30 is_stopped "$victim" || fail "the second worker did not stop"
until_true 30 queue_is_there || fail "the others do not queue behind the stopped worker"
sleep 1 # so that a person sees that nothing moves
say "3. It holds the totals; the others wait. 'lockkeeper why wordcount.table#0' says so:"
say "$(lockkeeper why 'wordcount.table#0' | sed 's/^/   /')"

say "4. kill -KILL $victim"
kill -KILL "$victim"
wait "$victim" 2>/dev/null || true
until_true 30 eval 'grep -qs "died inside" "$dir"/worker*.log' || fail "nobody was told of the death"
say "   $(grep -h "died inside" "$dir"/worker*.log)"

for i in 0 2 3; do
    wait "${workers[$i]}" || fail "worker ${workers[$i]} failed"
done
wait "$watcher" || fail "the watcher failed"
say "   $(grep -h "counted it again" "$dir"/worker*.log)"

say "5. All counted: $(cat "$dir/result")"
total=$(cut -d' ' -f1 "$dir/result")
[ "$total" = "$expected" ] || fail "the table says $total words, wc -w says $expected"
say "   wc -w says:  $expected"

say "6. The segments are kept, and a shell job that holds a lock looks like this:"
lockkeeper run report -- sleep 60 &
holds() { [ "$(lockkeeper ls report --raw --no-headings -o STATE 2>/dev/null | head -n "$1" | wc -l)" -ge "$1" ]; }
until_true 10 holds 1 || fail "'lockkeeper run' does not hold its lock"
lockkeeper run -s report -- true &
until_true 10 holds 2 || fail "'lockkeeper run' does not wait"
lockkeeper seg ls >&2
lockkeeper ls

lockkeeper seg rm wordcount.text wordcount.table
say "4 workers counted $total words, one was killed inside its critical section, the next was told" \
    "and repaired, and wc -w agrees."
