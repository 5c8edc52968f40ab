#!/bin/sh
# usage: fuzz.sh TIME
# Fuzzes every target of the module for TIME each; fails if one fails, or none is found.
set -eu
cd "$(dirname "$0")/../.."
time=${1:?usage: fuzz.sh TIME}
found=0 failed=

# The go command sometimes takes its own end of time for a failure ("context
# deadline exceeded" and no failing input), the more often the busier the machine
# is. That, and only that, is run again, so often that it is no matter of luck.
fuzz() {
	for try in 1 2 3 4 5; do
		log=$(go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" "$1" 2>&1) && { echo "$log"; return 0; }
		echo "$log"
		case $log in
		*"Failing input written"* | *"seed corpus entry"*) return 1 ;;
		*"context deadline exceeded"*) echo "fuzz $1 $2: its end of time was taken for a failure, $try of 5" ;;
		*) return 1 ;;
		esac
	done
	return 1
}

packages=$(go list -f '{{.ImportPath}} {{.Dir}}' ./...)
while read -r package dir; do
	for target in $(cat "$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do
		found=$((found + 1))
		echo "fuzz $package $target"
		fuzz "$package" "$target" || failed="$failed $package.$target"
	done
done <<L
$packages
L
[ "$found" -gt 0 ] || { echo "fuzz: no target found" >&2; exit 1; }
[ -z "$failed" ] || { echo "fuzz: failed:$failed" >&2; exit 1; }
echo "fuzz: $found targets clean, $time each"
