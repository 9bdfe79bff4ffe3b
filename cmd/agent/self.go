package main

import (
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/tollwire/tollwire/account/budget"
	"github.com/tollwire/tollwire/account/machine"
	"github.com/tollwire/tollwire/account/resources"
	"github.com/tollwire/tollwire/account/unpriced"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/otlp"
	"github.com/tollwire/tollwire/pricing"
)

// self is what the agent knows about itself, as measures.
type self struct {
	taps      taps // once attached
	attached  atomic.Bool
	pipeline  *pipeline
	owners    *attribution.Resolver
	prices    *pricing.Store
	records   *jsonl.File // nil: none
	budgets   *budget.Ledger
	machines  *machine.Ledger
	unpriced  unpriced.Tally
	resources *resources.Ledger
	pods      podSources
	config    *reloader
	otlp      atomic.Pointer[otlp.Exporter] // nil: none; it asks for samples from its start on
}

// decoded sums the decoders of all shards, and waits for none of them.
func (p *pipeline) decoded() (all decoder.Stats) {
	p.mu.Lock()
	shards := slices.Clone(p.decoders)
	p.mu.Unlock()
	all.Failures = make(map[string]uint64)
	for _, s := range shards {
		one := s.stats()
		all.Pushed += one.Pushed
		all.Decoded += one.Decoded
		all.Ignored += one.Ignored
		all.Duplicate += one.Duplicate
		all.Refused += one.Refused
		all.Held += one.Held
		all.Calls += one.Calls
		all.Evicted += one.Evicted
		all.EvictedOpen += one.EvictedOpen
		all.Connections += one.Connections
		all.Exchanges += one.Exchanges
		for i, n := range one.Lost {
			all.Lost[i] += n
		}
		for kind, n := range one.Failures {
			all.Failures[kind] += n
		}
	}
	return all
}

// samples yields the agent's measures of itself.
func (s *self) samples(emit func(metric.Sample)) {
	count := func(name, unit, help string, v uint64, attrs ...metric.Attr) {
		emit(metric.Sample{Name: name, Unit: unit, Kind: metric.Counter, Help: help, Attrs: attrs, Value: float64(v)})
	}
	gauge := func(name, unit, help string, v float64, attrs ...metric.Attr) {
		emit(metric.Sample{Name: name, Unit: unit, Kind: metric.Gauge, Help: help, Attrs: attrs, Value: v})
	}

	s.attribution(emit)
	user := s.pipeline.decoded()
	s.capture(emit, &user)
	gauge("tollwire.queue.depth", "", "What waits in a queue.", float64(s.pipeline.queued.Load()), metric.Attr{Key: "queue", Value: "calls"})
	count("tollwire.queue.dropped", "", "Finished calls that the queue had no room for.", s.pipeline.dropped.Load(), metric.Attr{Key: "queue", Value: "calls"})
	settled := s.pipeline.settled()
	gauge("tollwire.queue.depth", "", "What waits in a queue.", float64(settled.Pending), metric.Attr{Key: "queue", Value: "settle"})
	for _, x := range []struct {
		end string
		n   uint64
	}{{"only", settled.Alone}, {"further", settled.Joined}, {"late", settled.Late}} {
		count("tollwire.settle.records", "", "Records by their end of a call: the only one seen, a further one of a call that was counted at another, or one that came after the call had been counted.",
			x.n, metric.Attr{Key: "end", Value: x.end})
	}
	count("tollwire.settle.early", "", "Records that went out before their time, for want of room.", settled.Early)
	gauge("tollwire.stream.open", "", "Requests without a whole response yet.", float64(user.Exchanges))
	gauge("tollwire.connection.open", "", "Connections that are followed.", float64(user.Connections))
	for _, e := range []struct {
		reason string
		n      uint64
	}{{"connections", user.Evicted}, {"memory", user.EvictedOpen}} {
		count("tollwire.connection.evicted", "", "Connections whose open exchanges were given up, as too many were followed, or what all hold was too much.", e.n, metric.Attr{Key: "reason", Value: e.reason})
	}
	for kind, n := range user.Failures {
		count("tollwire.decode.failures", "", "Messages that could not be read, by kind.", n, metric.Attr{Key: "kind", Value: kind})
	}
	if s.records != nil {
		r := s.records.Stats()
		count("tollwire.export.failures", "", "Writes that failed, by exporter.", r.Failures, metric.Attr{Key: "exporter", Value: "jsonl"})
		count("tollwire.export.dropped", "", "Records that an exporter could not take.", r.Dropped, metric.Attr{Key: "exporter", Value: "jsonl"})
	}
	if x := s.otlp.Load(); x != nil {
		x.Samples("otlp", emit)
	}
	s.spending(emit)
	p := s.prices.Status()
	count("tollwire.price_book.reloads", "", "Price books that came into force after the first.", uint64(p.Reloads))
	count("tollwire.price_book.errors", "", "Price books that were refused.", uint64(p.Errors))
	gauge("tollwire.build.info", "", "Constant 1, with what runs.", 1,
		metric.Attr{Key: "version", Value: version}, metric.Attr{Key: "revision", Value: revision()},
		metric.Attr{Key: "go_version", Value: runtime.Version()}, metric.Attr{Key: "price_book", Value: p.Version})
}
