#!/bin/sh
# Keep notes beside a volume, version them with it, tag the result, and undo something uncommitted.
set -eu
dataset=${1:-demo/mnt/cells}
branch=$dataset/branches/notes
[ -d "$branch" ] || mkdir "$branch"

mkdir -p "$branch/files/notes"
date > "$branch/files/notes/seen.txt"
echo "Notes of the day" > "$branch/.volfs/commit"
number=$(sed -n 's/.*"head": *"\(v[0-9]*\)".*/\1/p' "$branch/.volfs/status.json")
[ -e "$dataset/tags/noted" ] || ln -s "../versions/$number" "$dataset/tags/noted"
echo "tagged: noted -> $(readlink "$dataset/tags/noted")"
cat "$dataset/tags/noted/files/notes/seen.txt"

echo "a slip of the pen" > "$branch/files/notes/seen.txt"
echo files/notes > "$branch/.volfs/discard"
cmp "$branch/files/notes/seen.txt" "$dataset/tags/noted/files/notes/seen.txt" && echo "undone."
