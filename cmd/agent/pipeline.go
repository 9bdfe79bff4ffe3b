package main

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
	"github.com/tollwire/tollwire/probes"
)

// source is where plaintext comes from: the taps of this node, or a recording.
// Read blocks; it returns os.ErrClosed when nothing will follow, as is soon after Close.
type source interface {
	Shards() int
	Read(shard int, d *flow.Data) error
	SetVerdict(c flow.Conn, exchange uint32, v flow.Verdict) error
	Close() error
}

// exporter takes finished records. Export is called from one goroutine and must
// not block; Close flushes.
type exporter interface {
	Export(*account.Record)
}

// owners says whom a process belongs to.
type owners interface {
	Observe(p flow.Proc, cgroup uint64)
	Owner(p flow.Proc, cgroup uint64, e attribution.Evidence) attribution.Owner
}

// pricer puts a price on a call made at a time.
type pricer interface {
	Price(pricing.Query) pricing.Price
}

// pipeline is the whole way of the data. The fast half (source, decoder) runs one
// goroutine a shard and never waits for the slow half (everything after it):
// between them is a bounded queue, and what it must drop is counted.
type pipeline struct {
	log     *slog.Logger
	source  source
	decoder decoder.Config
	owners  owners
	settle  account.Config
	prices  pricer
	stamp   func(*llm.Call) time.Time // wall clock of the request's first byte
	export  []exporter
	queue   int           // calls between the halves
	tick    time.Duration // how often clocks are looked at; 0: never (a recording)

	dropped  atomic.Uint64 // calls that the slow half had no room for
	capped   capped
	queued   atomic.Int64
	settler  atomic.Pointer[account.Settler] // nil: nothing ended yet
	mu       sync.Mutex                      // guards decoders
	decoders []*shard
}

// capped counts calls whose graph, node or tenant became "other".
type capped struct{ graphs, nodes, tenants atomic.Uint64 }

func (c *capped) count(o attribution.Capped) {
	for _, n := range []struct {
		is bool
		of *atomic.Uint64
	}{{o.Graph, &c.graphs}, {o.Node, &c.nodes}, {o.Tenant, &c.tenants}} {
		if n.is {
			n.of.Add(1)
		}
	}
}

// shard is one decoder and the lock that its reader and the clock share.
type shard struct {
	sync.Mutex
	*decoder.Decoder
	last atomic.Pointer[decoder.Stats] // as they were when the lock was last free, or the clock ticked
}

// stats returns the decoder's counts without waiting for it: what it does now may take
// long, and then they are those of before.
func (s *shard) stats() decoder.Stats {
	if s.TryLock() {
		s.publish()
		s.Unlock()
	}
	if last := s.last.Load(); last != nil {
		return *last
	}
	return decoder.Stats{}
}

// publish makes the counts readable without the lock, which the caller holds.
func (s *shard) publish() {
	now := s.Stats()
	s.last.Store(&now)
}

// run reads the source until it is closed, then finishes what is open. A shard that
// cannot be read ends them all with its error: its calls would be missing without a sign.
func (p *pipeline) run() error {
	calls := make(chan *llm.Call, p.queue)
	seen := make(chan *flow.Data, p.queue)

	var fast errgroup.Group
	for i := range p.source.Shards() {
		fast.Go(func() error { return p.read(i, calls, seen) })
	}
	var early errgroup.Group
	early.Go(func() error { // short-lived processes are read while they live
		for d := range seen {
			p.owners.Observe(d.Conn.Proc, d.Cgroup)
		}
		return nil
	})
	var slow errgroup.Group
	slow.Go(func() error { p.finish(calls); return nil })

	err := fast.Wait()
	close(seen)
	close(calls)
	return errors.Join(err, early.Wait(), slow.Wait())
}

// read is the fast half: ring to calls.
func (p *pipeline) read(i int, calls chan<- *llm.Call, seen chan<- *flow.Data) error {
	cfg := p.decoder
	cfg.MaxOpen /= p.source.Shards()
	cfg.Call = func(c *llm.Call) { p.enqueue(calls, c) }
	cfg.Verdict = func(c flow.Conn, exchange uint32, v flow.Verdict) {
		if err := p.source.SetVerdict(c, exchange, v); err != nil {
			p.log.Debug("set verdict", "conn", c, "err", err)
		}
	}
	s := &shard{Decoder: decoder.New(cfg)}
	p.mu.Lock()
	p.decoders = append(p.decoders, s)
	p.mu.Unlock()

	stopped := make(chan struct{})
	defer close(stopped)
	if p.tick > 0 {
		go s.clock(p.tick, stopped)
	}
	var last flow.Conn
	for {
		var d flow.Data
		if err := p.source.Read(i, &d); err != nil {
			s.Lock()
			s.Close()
			s.Unlock()
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			err = fmt.Errorf("read shard %d: %w", i, err)
			p.log.Error("ending, as captured bytes cannot be read", "err", err)
			return errors.Join(err, p.source.Close())
		}
		if d.Conn != last {
			last = d.Conn
			select {
			case seen <- &flow.Data{Conn: d.Conn, Cgroup: d.Cgroup}:
			default: // the owner is read later, when the call ends
			}
		}
		s.Lock()
		s.Push(&d)
		s.Unlock()
	}
}

// clock tells a decoder the time between records, so that what waits in vain is given up.
func (s *shard) clock(every time.Duration, stopped <-chan struct{}) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-stopped:
			return
		case <-t.C:
			s.Lock()
			s.Tick(probes.Now())
			s.publish()
			s.Unlock()
		}
	}
}

// settled counts what the slow half did so far.
func (p *pipeline) settled() (s account.Stats) {
	if settler := p.settler.Load(); settler != nil {
		s = settler.Stats()
	}
	return s
}

// enqueue hands a call to the slow half. A recording waits for room; a live
// capture drops and counts.
func (p *pipeline) enqueue(calls chan<- *llm.Call, c *llm.Call) {
	p.queued.Add(1)
	if p.tick == 0 {
		calls <- c
		return
	}
	select {
	case calls <- c:
	default:
		p.queued.Add(-1)
		p.dropped.Add(1)
	}
}

// open yields the calls with such a request that have not ended at their client, each
// while its shard is locked.
func (p *pipeline) open(path string, bytes int64) iter.Seq[*llm.Call] {
	return func(yield func(*llm.Call) bool) {
		p.mu.Lock()
		decoders := slices.Clone(p.decoders)
		p.mu.Unlock()
		for _, s := range decoders {
			if !s.open(path, bytes, yield) {
				return
			}
		}
	}
}

func (s *shard) open(path string, bytes int64, yield func(*llm.Call) bool) bool {
	s.Lock()
	defer s.Unlock()
	for c := range s.Open(path, bytes) {
		if !yield(c) {
			return false
		}
	}
	return true
}

// finish is the slow half: calls to records. Each stage adds its part.
func (p *pipeline) finish(calls <-chan *llm.Call) {
	cfg := p.settle
	cfg.Open = p.open
	settler := account.New(cfg, func(r *account.Record) {
		if r.Counted {
			p.capped.count(r.Booked().Capped)
		}
		r.Price = p.prices.Price(pricing.FromCall(r.Call, r.Time))
		for _, e := range p.export {
			e.Export(r)
		}
	})
	p.settler.Store(settler)
	var tick <-chan time.Time
	if p.tick > 0 {
		t := time.NewTicker(p.tick)
		defer t.Stop()
		tick = t.C
	}
	add := func(c *llm.Call) {
		p.queued.Add(-1)
		settler.Add(&account.Record{Time: p.stamp(c), Call: c, Owner: p.owners.Owner(c.Conn.Proc, c.Cgroup, evidence(c))})
	}
	for {
		select {
		case c, ok := <-calls:
			if !ok {
				settler.Flush()
				return
			}
			add(c)
		case <-tick:
			now := probes.Now()
			for range len(calls) { // what had ended by now comes first
				add(<-calls)
			}
			settler.Tick(now)
		}
	}
}

// evidence is what a call says of its own owner.
func evidence(c *llm.Call) attribution.Evidence {
	return attribution.Evidence{Headers: c.Headers, Baggage: c.Baggage, Metadata: c.Metadata, Session: c.MCP.Session, KeyHash: c.APIKey}
}
