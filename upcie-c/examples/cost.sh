#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Counts the instructions of one I/O through the C calls at queue depth 32: cost.sh FOLDER, where FOLDER has a release build's
# libupcie.a. Needs valgrind. To compare: the Rust turn, `ours_qd32` in benches/instructions.json.
set -eu
here=$(dirname "$0")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cc -std=c99 -D_GNU_SOURCE -O2 -I "$here/../include" "$here/cost.c" -o "$out/cost" \
	"$1/libupcie.a" -lgcc_s -lutil -lpthread -lm -ldl
count() {
	ios=$(valgrind --quiet --tool=callgrind "--toggle-collect=$2_of_32" --callgrind-out-file="$out/$1" "$out/cost" "$1" $3)
	echo "$ios $(sed -n 's/^\(summary\|totals\): //p' "$out/$1" | head -n 1)"
}
for way in turn many; do
	option=$([ "$way" = turn ] || echo many)
	echo "$way $(count 50 "$way" "$option") $(count 150 "$way" "$option")" |
		awk '{ printf "%s: %.2f instructions per I/O (%d I/Os)\n", $1, ($5 - $3) / ($4 - $2), $4 - $2 }'
done
