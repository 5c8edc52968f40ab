#!/bin/sh
# usage: fuzz.sh TIME
# Fuzzes every target of the module for TIME each; fails if one fails, or none is found.
set -eu
cd "$(dirname "$0")/../.."
time=${1:?usage: fuzz.sh TIME}
found=0 failed=
packages=$(go list -f '{{.ImportPath}} {{.Dir}}' ./...)
while read -r package dir; do
	for target in $(cat "$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do
		found=$((found + 1))
		echo "fuzz $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" || failed="$failed $package.$target"
	done
done <<L
$packages
L
[ "$found" -gt 0 ] || { echo "fuzz: no target found" >&2; exit 1; }
[ -z "$failed" ] || { echo "fuzz: failed:$failed" >&2; exit 1; }
echo "fuzz: $found targets clean, $time each"
