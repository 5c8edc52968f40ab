BIN ?= bin
FUZZTIME ?= 30s
STEPCA := $(CURDIR)/.parts/step-ca-v0.30.2

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20
build: ## put the programs into bin/
	@CGO_ENABLED=0 go build -trimpath -o $(BIN)/ ./cmd/...
run: build ## the whole line on loopback; ONCE=1 ends after the check, CHALLENGE=tls-alpn-01, DAEMON=chrony|ntpsec|ntpd-rs, DIR=lab keeps all
	@$(BIN)/ntslab $(if $(ONCE),--once) $(if $(CHALLENGE),--challenge $(CHALLENGE)) $(if $(DAEMON),--daemon $(DAEMON)) $(if $(DIR),--dir $(DIR))
test:  ## all tests, real daemons included
	@go test -count=1 -timeout 5m -json ./... | go run ./packaging/tally
test-slow: ## what make test has no time for: every kill of the sweep, a second CA, more lifetimes
	@[ -x $(STEPCA)/step-ca ] || CGO_ENABLED=0 GOBIN=$(STEPCA) go install github.com/smallstep/certificates/cmd/step-ca@v0.30.2
	@NTSAGENT_STEP_CA=$(STEPCA)/step-ca go test -count=1 -timeout 20m -tags slow -json -run 'Killed|StepCA|Calendars' ./acme ./acme/issuer | go run ./packaging/tally
race:  ## all tests under the race detector
	@go test -race ./...
fuzz:  ## each fuzz target for FUZZTIME=30s
	@packaging/ci/fuzz.sh $(FUZZTIME)
bench: build ## measured against chronyd and the floor: ROUNDS=9, about 7 minutes; BENCH="--table gateway" or other flags of ntsbench bench
	@$(BIN)/ntsbench bench --rounds $(or $(ROUNDS),9) $(BENCH)
lint:  ## gofmt, go mod tidy, vet, staticcheck
	@packaging/ci/lint.sh
parts: ## unpack the real daemons into .parts/
	@packaging/parts/unpack.sh .parts bookworm chrony ntpsec openntpd nftables knot libnginx-mod-stream haproxy systemd && packaging/parts/unpack.sh .parts trixie chrony ntpsec ntpd-rs
clean: ## remove what the targets above made
	@rm -rf $(BIN) .parts
.PHONY: help build run test test-slow race fuzz bench lint parts clean
