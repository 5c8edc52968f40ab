#!/bin/sh
# gofmt, go mod tidy, vet and staticcheck over the whole module.
set -eu
cd "$(dirname "$0")/../.."
dirs=$(go list -f '{{.Dir}}' ./...)
unformatted=$(gofmt -l $dirs)
[ -z "$unformatted" ] || { echo "gofmt -w is needed by:" "$unformatted" >&2; exit 1; }
go mod tidy -diff
go vet ./...
go vet -tags slow ./acme ./acme/issuer # make test-slow
go tool staticcheck ./...
