#!/bin/sh
# Look around in a mounted dataset with nothing but file tools.
set -eu
dataset=${1:-demo/mnt/cells}

echo "What is here:"
ls "$dataset"
echo
echo "Its versions, newest first:"
cat "$dataset/log.txt"
echo
latest=$dataset/versions/latest
echo "The newest version:"
ls -l "$latest/"
echo
echo "A level is an array; this is what it knows of itself:"
cat "$latest/s0/info.json"
echo
echo "The first three slices of each plane:"
for plane in xy xz yz; do
    find "$latest/s0/$plane/" -name '*0000[012].*' | sort
done
echo
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cp "$latest/thumbnail.png" "$latest/s0/xy/z00000.png" "$out/"
echo "Copied out:"
ls -l "$out"
cmp "$latest/s0/xy/z00000.png" "$out/z00000.png" && echo "and equal, byte for byte."
