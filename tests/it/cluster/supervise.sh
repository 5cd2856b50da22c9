#!/bin/sh
# Runs a program until it ends, or until stdin does. Who started this holds the other end of that
# pipe: when it is gone, in whatever way, so is the program, and then the folder.
# Usage: supervise.sh FOLDER LOG PROGRAM [ARGUMENT...]
folder=$1
log=$2
shift 2
# The children that are killed here are always our own, not yet waited for: a number of theirs
# cannot have gone to someone else's process.
trap 'kill -KILL "$program" 2>/dev/null; wait "$program"; rm -rf "$folder"; exit 0' TERM
exec 3<&0
"$@" >"$log" 2>&1 </dev/null 3<&- &
program=$!
echo "$program" >"$log.pid"
(
    while read -r _; do :; done
    kill -TERM $$
) <&3 &
watcher=$!
wait "$program"
code=$?
trap '' TERM
kill -KILL "$watcher" 2>/dev/null
exit "$code"
