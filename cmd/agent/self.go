package main

import (
	"runtime"
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
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/pricing"
	"github.com/tollwire/tollwire/probes"
)

// self is what the agent knows about itself, as measures.
type self struct {
	taps      *probes.Taps
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

// decoded sums the decoders of all shards.
func (p *pipeline) decoded() (all decoder.Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all.Failures = make(map[string]uint64)
	for _, s := range p.decoders {
		s.Lock()
		one := s.Stats()
		s.Unlock()
		all.Pushed += one.Pushed
		all.Decoded += one.Decoded
		all.Ignored += one.Ignored
		all.Duplicate += one.Duplicate
		all.Refused += one.Refused
		all.Held += one.Held
		all.Calls += one.Calls
		all.Evicted += one.Evicted
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
	const bytesHelp = "Bytes of programs by what became of them: decoded, ignored (nobody needs them) or dropped, with the reason. Their sum is tollwire.capture.seen, less what is in flight."
	bytes := func(n uint64, fate, reason, source string) {
		count("tollwire.capture", "By", bytesHelp, n, metric.Attr{Key: "fate", Value: fate}, metric.Attr{Key: "reason", Value: reason}, metric.Attr{Key: "source", Value: source})
	}

	s.attribution(emit)
	taps, user := s.taps.Stats(), s.pipeline.decoded()
	for src, t := range taps.Sources {
		name := flow.Source(src).String()
		if t.LostEnds > 0 || t.Calls > 0 {
			count("tollwire.capture.ends.lost", "", "Ends of connections, directions and (source none) processes that the ring had no room for.", t.LostEnds, metric.Attr{Key: "source", Value: name})
		}
		if t.Missed > 0 || t.Calls > 0 {
			count("tollwire.capture.calls.missed", "", "Times that the kernel left out a tap's program, as another task was preempted inside of it, or too many calls slept: what these calls moved the socket's next call finds, and counts as dropped, missed.", t.Missed, metric.Attr{Key: "source", Value: name})
		}
		if t.Calls == 0 {
			continue
		}
		count("tollwire.capture.seen", "By", "Bytes that tapped calls said they moved, counted from their return values.", t.Seen, metric.Attr{Key: "source", Value: name})
		bytes(t.Ignored, "ignored", "verdict", name)
		for r, n := range t.Dropped {
			if n > 0 {
				bytes(n, "dropped", flow.GapReason(r).String(), name)
			}
		}
	}
	bytes(user.Decoded, "decoded", "", "")
	bytes(user.Ignored, "ignored", "not_http", "")
	bytes(user.Refused, "dropped", "refused", "")
	bytes(user.Duplicate, "dropped", "duplicate", "")

	attached := map[string]int{}
	for _, a := range s.taps.Attached() {
		attached[a.Source.String()]++
	}
	for src, n := range attached {
		gauge("tollwire.tap.attached", "", "Files and sockets that a tap is attached to.", float64(n), metric.Attr{Key: "source", Value: src})
	}
	unseen := map[[2]string]int{}
	for _, u := range s.taps.Unobservable() {
		unseen[[2]string{u.Stack, u.Reason}]++
	}
	for k, n := range unseen {
		gauge("tollwire.process.unobservable", "", "Processes whose TLS cannot be read, by stack and reason.", float64(n),
			metric.Attr{Key: "stack", Value: k[0]}, metric.Attr{Key: "reason", Value: k[1]})
	}
	gauge("tollwire.queue.depth", "", "What waits in a queue.", float64(s.pipeline.queued.Load()), metric.Attr{Key: "queue", Value: "calls"})
	count("tollwire.queue.dropped", "", "Finished calls that the queue had no room for.", s.pipeline.dropped.Load(), metric.Attr{Key: "queue", Value: "calls"})
	gauge("tollwire.stream.open", "", "Requests without a whole response yet.", float64(user.Exchanges))
	gauge("tollwire.connection.open", "", "Connections that are followed.", float64(user.Connections))
	count("tollwire.connection.evicted", "", "Connections that were followed no more for want of room.", user.Evicted)
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
