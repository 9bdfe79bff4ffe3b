# tollwire: `make demo` shows the main job, `make test` passes the tests.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := build

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
export CGO_ENABLED ?= 0
# Third-party binaries that take long to build live outside the checkout.
export TOLLWIRE_CACHE ?= $(HOME)/.cache/tollwire

.PHONY: build
build: bin/tollwire bin/llmsim ## Build the agent and the provider simulator into bin/

.PHONY: bin/tollwire bin/llmsim bin/demo
bin/tollwire:
	go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/agent
bin/llmsim:
	go build -trimpath -o $@ ./cmd/llmsim
bin/demo:
	go build -trimpath -o $@ ./cmd/demo

.PHONY: demo
demo: setup build bin/demo ## Run the agent on real unmodified clients and check it against the simulator's ledger
	@$(AS_ROOT) bin/demo

.PHONY: test
test: setup test-unit test-race test-root ## Every test that needs no cluster, no other kernel and no other backend

# What attaches is left to test-root, what downloads 240 MB to test-sdks.
.PHONY: test-unit
test-unit:
	@hack/fetch mod download
	go vet ./...
	go tool depguard ./...
	go test -skip '^TestTiming$$' $$(go list ./... | grep -vE '/(probes|e2e|sdks)$$')

.PHONY: test-race
test-race:
	CGO_ENABLED=1 go test -race -short -timeout 30m ./...

# Tests that attach for real: they need root, so they are built as you and run as root,
# one after the other.
.PHONY: test-root
test-root: build
	@for t in attribution:Real probes: cmd/agent:Timing e2e:; do p=$${t%:*}; \
	  go test -c -o bin/$$(basename $$p).test ./$$p && \
	  (cd $$p && $(AS_ROOT) $(CURDIR)/bin/$$(basename $$p).test -test.v -test.timeout 20m -test.count 1 \
	    -test.run "$${t#*:}" | $(CURDIR)/hack/testlog) || exit 1; done

AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo "sudo -E env PATH=$$PATH")

.PHONY: setup
setup: ## Install what the demo and the tests need (Debian, Ubuntu); nothing when it is there
	@$(AS_ROOT) hack/setup

.PHONY: generate
generate: ## Remake the BPF objects and the Go beside them, with the pinned clang
	@$(AS_ROOT) hack/setup clang
	go generate ./probes/...

.PHONY: verify
verify: generate ## Fail when generated files differ from what is committed
	@git diff --exit-code --stat -- probes bpf || { echo "verify: generated files differ; run 'make generate' and commit"; exit 1; }
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	@echo "verify: generated files are what the sources make"

.PHONY: conformance
conformance: ## Decode the recorded corpora and hold every number to their expectations
	@go run ./decoder/conformance/cmd/conformance

.PHONY: conformance-cuts
conformance-cuts: ## End every recorded answer too early, at every byte: what is called exact must be right (some minutes)
	@go run ./decoder/conformance/cmd/conformance -cuts

.PHONY: bench-decode
bench-decode: ## Speed of the decoder on recorded SSE beside gjson alone, and memory held a stream
	@go test -run '^$$' -cpu 1 -benchtime 3s -bench '^Benchmark(Recorded|RecordedGJSONPaths|RecordedGJSONWalk|Held)$$' ./decoder | awk '\
	  function value(unit) {for (i=2; i<NF; i++) if ($$(i+1)==unit) return $$i} \
	  /^BenchmarkRecordedGJSON/ {s=value("MB/s"); if (s>theirs) theirs=s; print "gjson by " ($$1 ~ /Walk/ ? "one walk" : "paths") ": " s " MB/s"} \
	  /^BenchmarkRecorded[ \t]/ {ours=value("MB/s")} \
	  /^BenchmarkHeld/ {n=value("held")/1024; if (n>held) held=n; sub(".*/", "", $$1); printf "held, %s: %.1f KiB\n", $$1, n} \
	  END {printf "decode: %.0f MB/s, %.2fx of gjson, %.0f KiB held a stream\n", ours, ours/theirs, held}'

.PHONY: bench-probes
bench-probes: setup ## What the tap adds to SSL_write and SSL_read, beside an empty uprobe and uretprobe at their entries
	@go test -c -o bin/probes.test ./probes
	@cd probes && $(AS_ROOT) ../bin/probes.test -test.run '^$$' -test.bench '^BenchmarkOpenSSL$$' -test.benchtime 20x | awk '\
	  {for (i=3; i<NF; i++) if ($$(i+1) ~ /[-/]/) v[$$(i+1)]=$$i} /FAIL|---/ {print} \
	  END {for (n=split("256B 4KiB 16KiB ignored", w); ++k<=n;) printf "%s: floor %.0f ns a call, added %.0f ns; in the tap'"'"'s programs %.0f ns, of which %.0f ns are what counting them costs\n", \
	         w[k], v[w[k] "-floor-ns/call"], v[w[k] "-added-ns/call"], v[w[k] "-inside-ns/call"], v[w[k] "-counting-ns/call"]; \
	       printf "probes: 256B %.2fx, 16KiB %.2fx, ignored %.2fx of floor\n", v["256B-of-floor"], v["16KiB-of-floor"], v["ignored-of-floor"]}'

.PHONY: conformance-pricing
conformance-pricing: bin/tollwire ## Price recorded usage with the price that held then
	@TOLLWIRE=$(CURDIR)/bin/tollwire go test -count=1 -v -run '^TestExpectedPrices$$' ./pricing/cli | grep '^pricing:'

.PHONY: bench-pricing
bench-pricing: ## Time and allocations of pricing a call
	@go test -run '^$$' -bench 'Price$$' -benchmem ./pricing | \
	  awk '/^BenchmarkPrice/ {printf "pricing: %.1f us, %d allocs a call\n", $$3/1000, $$7}'

.PHONY: prices
prices: ## Make the default price book anew from genai-prices' data
	go run ./cmd/agent prices import genai-prices ../shared/corpora/genai-prices/data.json -o pricing/book/default.yaml \
	  --date 2026-08-21 --source "pydantic/genai-prices 47df840a (MIT)"

# What differs by kernel, and loads no taps of its own, which takes a minute there. Each must
# pass on every one of them, or from the version on that is named.
KERNEL_TESTS := StockKernel CheckKnowsWhatUprobesWant RealInodes@5.12 Written OneFileUnderTwoMounts \
  SocketCalls PlaintextSocket PeekIsNotCounted Uring MissedCalls TellingMissesNothing Late Peer PlainAfterTLS \
  PeerOfGo OpenSSL Calls Places Forked DownloadDoesNotCross FetchedAnswersCross Verdict OverLimit HTTP2Frames \
  Go GnuTLS NSS EndOfAnswer Preempted OwnStacks@6.13 \
  CipherTapOnlyData@5.12 CipherTapNeverSent@5.12 CipherTapEarlyAnswer@5.12 CipherTapLostAndFound@5.12 \
  CipherTapMissed@5.12 CipherTapRest@5.12 CipherTapOneFunction

.PHONY: test-kernels
test-kernels: setup ## Run the taps' tests on Debian's kernels under QEMU, on each way to the sockets
	CGO_ENABLED=0 go test -c -o bin/probes.test ./probes
	@mkdir -p bin/clients
	for c in sslcalls sslloop; do gcc -O2 -pthread -o bin/clients/$$c probes/testdata/$$c.c -lssl -lcrypto || exit; done
	gcc -O2 -pthread -o bin/clients/aeadcalls probes/testdata/aeadcalls.c
	for v in -DFIRST -DSECOND; do gcc $$v -O1 -fno-toplevel-reorder -o bin/clients/rewritten$$v probes/testdata/rewritten.c || exit; done
	CGO_ENABLED=0 go build -o bin/clients/go-client ./probes/testdata/goclient
	CGO_ENABLED=0 go build -ldflags '-s -w' -o bin/clients/stripped-client ./probes/testdata/goclient
	@cd probes && $(AS_ROOT) TOLLWIRE_CACHE=$(TOLLWIRE_CACHE) TESTS="$(addprefix Test,$(KERNEL_TESTS))" \
	  TEST_ARGS="-sockets fentry,kprobe,tracepoint -clients ../bin/clients" ../hack/kernels ../bin/probes.test

.PHONY: test-cgroups
test-cgroups: ## Whose a process is on a kernel that mounts cgroups v1, v2 or both, under QEMU
	CGO_ENABLED=0 go test -c -o bin/attribution.test ./attribution
	@cd attribution && for c in v1 hybrid v2; do \
	  $(AS_ROOT) TOLLWIRE_CACHE=$(TOLLWIRE_CACHE) CGROUPS=$$c TEST_ARGS="-test.run Real" ../hack/kernels ../bin/attribution.test 6.1 || exit; done

.PHONY: test-podman
test-podman: ## A container of podman's is named by its cgroup and podman's own files
	@$(AS_ROOT) hack/setup podman
	@go test -c -o bin/attribution.test ./attribution
	@cd attribution && $(AS_ROOT) ../bin/attribution.test -podman -test.v -test.run Podman -test.count 1 | $(CURDIR)/hack/testlog

.PHONY: test-races
test-races: setup ## The share of first requests that are seen, 200 tries with programs whose files nobody had mapped before
	CGO_ENABLED=0 go test -c -o bin/probes.test ./probes
	@cd probes && for away in 0s 20ms; do \
	  echo "a server that answers after $$away:"; \
	  $(AS_ROOT) ../bin/probes.test -test.v -test.timeout 9m -test.run ^TestAttachRaces$$ -tries 200 -away $$away \
	    -share $$([ $$away = 0s ] && echo 0 || echo 95) | grep -E 'attach races:|^FAIL|want'; done

# The last of each series that the module proxy has as a toolchain.
GOS ?= 1.18.10 1.19.13 1.20.14 1.21.13 1.22.12 1.23.12 1.24.12 1.25.6
.PHONY: test-go
test-go: setup ## Programs built by every Go since 1.18: with symbols, stripped, position-independent, linked by gcc
	CGO_ENABLED=0 go test -c -o bin/probes.test ./probes
	@roots=$$(go env GOROOT); for v in $(GOS); do \
	  roots=$$roots,$$(cd /tmp && GOTOOLCHAIN=go$$v go env GOROOT); done; \
	  cd probes && $(AS_ROOT) ../bin/probes.test -test.v -test.timeout 60m -test.run ^TestGo$$ -goroots "$$roots" | $(CURDIR)/hack/testlog

.PHONY: test-render
test-render: ## Kustomize and Helm render the same manifests
	cd deploy/render && ../../hack/fetch mod download && go test -count=1 ./...

.PHONY: image
image: ## The agent's image for amd64 and arm64, made without a Docker engine
	go run ./deploy/image -arch amd64,arm64 -tag ghcr.io/tollwire/tollwire:$(VERSION) -o bin/tollwire-$(VERSION).tar

.PHONY: test-image
test-image: ## The image's programs of amd64 and arm64 make the same records of all recorded calls (the other machine's under QEMU)
	@$(AS_ROOT) hack/setup qemu
	go test -count=1 -v -run '^TestPrograms$$' ./deploy/image -programs

.PHONY: test-sdks
test-sdks: setup ## Eleven npm SDKs and three Go SDKs call the simulator and are decoded (the first run downloads them)
	go test -count=1 -timeout 30m ./internal/clients/sdks

.PHONY: coverage
coverage: setup build ## Every client that can be had here, with and without the agent; writes docs/coverage.md (downloads some 1 GB)
	@$(AS_ROOT) hack/setup rust
	@go build -trimpath -o bin/coverage ./test/coverage
	@$(AS_ROOT) TOLLWIRE_CACHE=$(TOLLWIRE_CACHE) bin/coverage

FUZZTIME ?= 3s
.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME each
	@hack/fuzz $(FUZZTIME)

.PHONY: clean
clean:
	rm -rf bin

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test-cipher-tap
test-cipher-tap: setup build ## Programs with stripped TLS inside, as npm has them, four calls of each at once (the first run downloads 800 MB)
	@$(AS_ROOT) hack/setup rust
	@go build -trimpath -o bin/ciphertap ./test/ciphertap
	@$(AS_ROOT) bin/ciphertap

# How long the API server is away in test-cluster.
OUTAGE ?= 1m
.PHONY: test-cluster
test-cluster: build ## The DaemonSet on a real kubelet, held to the simulator's ledger
	@$(AS_ROOT) test/cluster/binaries
	@go run ./deploy/image -arch $$(go env GOARCH) -tag ghcr.io/tollwire/tollwire:0.1.0 -binary bin/tollwire -o bin/tollwire-image.tar
	@go build -trimpath -o bin/cluster ./test/cluster
	@$(AS_ROOT) bin/cluster -outage $(OUTAGE)

.PHONY: test-kwok
test-kwok: build ## 5,000 pods over 100 nodes: what the agent of one node holds in memory
	@$(AS_ROOT) test/cluster/binaries kwok
	@go build -trimpath -o bin/cluster ./test/cluster
	@$(AS_ROOT) bin/cluster -crowd

.PHONY: test-backends
test-backends: setup build bin/backends.test ## The same totals from Prometheus, Alertmanager and OTLP as from the simulator's ledger
	@go test -count=1 ./deploy/prometheus ./deploy/alertmanager ./export/prom # they skip without promtool
	@cd deploy/backends && $(AS_ROOT) ../../bin/backends.test -backends -test.v -test.timeout 7m -test.count 1 | $(CURDIR)/hack/testlog

.PHONY: test-backends-full
test-backends-full: setup build bin/backends.test ## The same through a real OTel Collector to Jaeger and Prometheus 3 (built from their modules first)
	@deploy/backends/binaries
	@PROMTOOL3=$(TOLLWIRE_CACHE)/backends/bin/promtool3 go test -count=1 -run OnNativeBuckets ./deploy/prometheus
	@cd deploy/backends && $(AS_ROOT) ../../bin/backends.test -full $(TOLLWIRE_CACHE)/backends/bin -test.v -test.timeout 12m -test.count 1 | $(CURDIR)/hack/testlog

.PHONY: bin/backends.test
bin/backends.test:
	@$(AS_ROOT) hack/setup backends
	@for p in backends grafana; do go test -c -o bin/$$p.test ./deploy/$$p; done
