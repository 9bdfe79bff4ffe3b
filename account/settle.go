package account

import (
	"cmp"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// Config bounds the settling of calls.
type Config struct {
	// Wait is how long after its end a call is held for the other records of it. 0
	// holds nothing: every record stands alone and goes out as it comes (a recording).
	Wait time.Duration
	// ServerWait is how long after its end a server's call is held while its client's is
	// not there: two readers of the rings may be as far apart on a busy machine. A client's
	// call does not wait for its server's, which is none of its own. 0 means Wait.
	ServerWait time.Duration
	// MaxWait bounds how long a record is held because others of its chain came
	// later. 0 means five times Wait.
	MaxWait time.Duration
	// Pending bounds the records held; the oldest goes out early past it. 0 means 4096.
	Pending int
	// Remember is how long a call that went out is known to those that enclose it and
	// end later. 0 means two minutes.
	Remember time.Duration
	// Remembered bounds those. 0 means 8192.
	Remembered int
	// Salt goes into the ids the agent makes, so that two nodes never make the same
	// one: the machine's boot id.
	Salt string
	// Owner, when set, is asked again for records whose pod is not yet known, for at
	// most OwnerWait after the call's end.
	Owner     func(*Record) attribution.Owner
	OwnerWait time.Duration
	// Open, when set, yields the calls with such a request, by its path and the size of
	// its body, that clients have sent and whose answer has not ended yet. A server's
	// record that may be the other end of one is held for it, for at most OpenWait after
	// its own end: on a busy machine a client may come to read its answer seconds after
	// the server has written it. 0 means a minute.
	Open     func(path string, bytes int64) iter.Seq[*llm.Call]
	OpenWait time.Duration
}

// Stats counts what the settler did.
type Stats struct {
	Pending int64  // records held now
	Alone   uint64 // calls of which one end was seen
	Joined  uint64 // records found to be further ends of a call
	Early   uint64 // records that went out before their time, for want of room
	Late    uint64 // further ends that came after the call had been counted
	Unowned uint64 // records that went out without their pod's facts
}

// Settler finds out which records are one call, so that its tokens and money are
// summed once, and gives every record its place in a trace. It is not safe for
// concurrent use, but for Stats.
//
// A client's and a server's record are the two ends of one exchange when the
// server's lies within the client's in time, on the same path, and the provider's
// response id is the same, or both bodies' sizes are. A process that serves a call
// and makes one meanwhile passes it on. Nothing is decided by a program's name.
type Settler struct {
	cfg  Config
	emit func(*Record)
	now  flow.Time
	seq  uint64

	pending []*end             // in order of arrival
	known   []*end             // went out, in order
	procs   map[procKey][]*end // by start
	keys    map[pairKey][]*end // by start; those without their other end

	held                                atomic.Int64
	alone, joined, early, late, unowned atomic.Uint64
}

// New returns a Settler that hands settled records to emit.
func New(cfg Config, emit func(*Record)) *Settler {
	cfg.MaxWait = cmp.Or(cfg.MaxWait, 5*cfg.Wait)
	cfg.Pending = cmp.Or(cfg.Pending, 4096)
	cfg.Remember = cmp.Or(cfg.Remember, 2*time.Minute)
	cfg.Remembered = cmp.Or(cfg.Remembered, 8192)
	cfg.OpenWait = cmp.Or(cfg.OpenWait, time.Minute)
	return &Settler{cfg: cfg, emit: emit, procs: make(map[procKey][]*end), keys: make(map[pairKey][]*end)}
}

// Stats returns the counters. It is safe for concurrent use.
func (s *Settler) Stats() Stats {
	return Stats{
		Pending: s.held.Load(), Alone: s.alone.Load(), Joined: s.joined.Load(),
		Early: s.early.Load(), Late: s.late.Load(), Unowned: s.unowned.Load(),
	}
}

// Add takes a finished call. The settler owns r until it is emitted.
func (s *Settler) Add(r *Record) {
	e := newEnd(r)
	s.seq++
	e.seq = s.seq
	if s.cfg.Wait == 0 {
		s.settle([]*end{e})
		return
	}
	e.due = max(s.now, e.stop) + flow.Time(s.cfg.Wait)
	e.limit = max(s.now, e.stop) + flow.Time(s.cfg.MaxWait)
	s.pending = append(s.pending, e)
	s.index(e)
	e.awaited = s.open(e) // not yet paired: one that fits better may be on its way
	if len(s.pending) > s.cfg.Pending {
		s.early.Add(1)
		s.resolve(s.pending[0], true)
		s.sweep()
	}
	s.held.Store(int64(len(s.pending)))
}

// Tick tells the settler the time, and sends out what has waited long enough.
func (s *Settler) Tick(now flow.Time) {
	s.now = max(s.now, now)
	for _, e := range s.pending {
		if e.r != nil && e.due <= s.now && s.ready(e) {
			s.resolve(e, false)
		}
	}
	s.sweep()
	s.forget()
}

// Flush sends out everything that is held.
func (s *Settler) Flush() {
	for _, e := range s.pending {
		if e.r != nil {
			s.ready(e)
			s.resolve(e, true)
		}
	}
	s.sweep()
}

// ready reports whether e need not wait any longer for its owner, which is asked for
// again when it isn't known, nor for its other end.
func (s *Settler) ready(e *end) bool {
	if s.nameless(e.r) {
		e.r.Owner = s.cfg.Owner(e.r)
	}
	unowned := s.nameless(e.r) && s.now < e.stop+flow.Time(s.cfg.OwnerWait)
	was := e.awaited
	e.awaited = e.server && s.pair(e) == nil && s.open(e)
	// A call that was open a moment ago is on its way here.
	apart := (e.awaited || was && e.partner == nil) && s.now < e.stop+flow.Time(s.cfg.OpenWait) ||
		e.server && e.partner == nil && s.now < e.stop+flow.Time(s.cfg.ServerWait)
	if e.held = unowned || apart; e.held {
		e.due = s.now + flow.Time(s.cfg.Wait)
		e.limit = e.due + flow.Time(s.cfg.MaxWait) // others may come with what it waits for
	}
	return !e.held
}

// open reports whether a client's call has not ended that may be the other end of e.
func (s *Settler) open(e *end) bool {
	if s.cfg.Open == nil || !e.server || e.start == 0 {
		return false
	}
	for c := range s.cfg.Open(e.path, e.sent) {
		if mayPair(c, e) {
			return true
		}
	}
	return false
}

// nameless reports whether r's pod is not known, and can be asked for.
func (s *Settler) nameless(r *Record) bool {
	return s.cfg.Owner != nil && !r.Owner.Complete && r.Owner.PodUID != ""
}

// resolve settles the chain that e is part of, once nothing of it need be waited for.
func (s *Settler) resolve(e *end, force bool) {
	chain := s.chain(e)
	if !force {
		due := flow.Time(0)
		for _, m := range chain {
			if m.r == nil {
				continue
			}
			if m != e && m.due <= s.now {
				s.ready(m)
			}
			if m.held {
				e.limit = max(e.limit, m.limit)
			}
			due = max(due, m.due)
		}
		if due = min(due, e.limit); due > s.now {
			e.due = due
			return
		}
	}
	s.settle(chain)
}

// sweep takes those that went out off the pending list.
func (s *Settler) sweep() {
	s.pending = slices.DeleteFunc(s.pending, func(e *end) bool { return e.r == nil })
	s.held.Store(int64(len(s.pending)))
}

// forget drops what went out long ago.
func (s *Settler) forget() {
	n := max(0, len(s.known)-s.cfg.Remembered)
	for n < len(s.known) && s.known[n].stop+flow.Time(s.cfg.Remember) < s.now {
		n++
	}
	for _, e := range s.known[:n] {
		s.unindex(e)
	}
	s.known = slices.Delete(s.known, 0, n)
}

// index makes e known by its process, and by what its other end has in common with it.
func (s *Settler) index(e *end) {
	s.procs[e.procKey()] = insert(s.procs[e.procKey()], e)
	for _, k := range e.pairKeys() {
		s.keys[k] = insert(s.keys[k], e)
	}
}

func (s *Settler) unindex(e *end) {
	remove(s.procs, e.procKey(), e)
	s.unkey(e)
	e.partner, e.parent, e.children = nil, nil, nil
}

// unkey takes e from those that look for their other end.
func (s *Settler) unkey(e *end) {
	for _, k := range e.pairKeys() {
		remove(s.keys, k, e)
	}
}

// from returns the place of the first end in l, which is in order, that starts at t or later.
func from(l []*end, t flow.Time) int {
	i, _ := slices.BinarySearchFunc(l, t, func(e *end, t flow.Time) int { return cmp.Compare(e.start, t) })
	return i
}

func insert(l []*end, e *end) []*end { return slices.Insert(l, from(l, e.start+1), e) }

func remove[K comparable](m map[K][]*end, k K, e *end) {
	l := m[k]
	if i := slices.Index(l, e); i >= 0 {
		l = slices.Delete(l, i, i+1)
	}
	if len(l) == 0 {
		delete(m, k)
	} else {
		m[k] = l
	}
}

// chain returns e and every end that is joined to it, in order of time.
func (s *Settler) chain(e *end) []*end {
	seen := map[*end]bool{e: true}
	all := []*end{e}
	add := func(x *end) {
		if x != nil && !seen[x] {
			seen[x] = true
			all = append(all, x)
		}
	}
	for i := 0; i < len(all); i++ {
		x := all[i]
		add(s.pair(x))
		if x.server {
			inner := s.procs[procKey{x.proc, false}]
			for i := from(inner, x.start); i < len(inner) && inner[i].start <= x.stop; i++ {
				s.enclose(inner[i])
			}
			for _, c := range x.children {
				add(c)
			}
		} else {
			add(s.enclose(x))
		}
	}
	slices.SortStableFunc(all, func(a, b *end) int { return cmp.Compare(a.start, b.start) })
	return all
}

// pair returns the other end of e's exchange, nil when it was not seen.
func (s *Settler) pair(e *end) *end {
	if e.partner != nil {
		return e.partner
	}
	// Behind a proxy that keeps ids and sizes, or among calls that are alike, more than
	// one end fits: the two that fit each other best are joined first.
	tried := map[*end]bool{}
	for {
		o := s.nearest(e, tried)
		if o == nil {
			return nil
		}
		rival := s.nearest(o, nil)
		if rival == e {
			e.partner, o.partner = o, e
			s.unkey(e)
			s.unkey(o)
			return o
		}
		if rival == nil || s.pair(rival) == nil { // each step fits better, so this ends
			tried[o] = true
		}
	}
}

// maxCandidates bounds how many ends of the same sizes are compared with one: those
// nearest in time.
const maxCandidates = 64

// nearest returns the unpaired end that fits e best.
func (s *Settler) nearest(e *end, not map[*end]bool) *end {
	var best *end
	var bestFit fit
	for _, k := range e.pairKeys() {
		k.server = !k.server
		l := s.keys[k]
		// A server's end starts after its client's: look away from e, the nearest first.
		i, step := from(l, e.start), 1
		if e.server {
			i, step = from(l, e.start+1)-1, -1
		}
		for n := 0; i >= 0 && i < len(l) && n < maxCandidates; i, n = i+step, n+1 {
			o := l[i]
			if not[o] {
				continue
			}
			c, v := e, o
			if e.server {
				c, v = o, e
			}
			if f := pairFit(c, v); f.betterThan(bestFit) {
				best, bestFit = o, f
			}
		}
	}
	return best
}

// maxOpen bounds how many calls that a process serves at once are compared with one
// that it makes: those that began last.
const maxOpen = 512

// enclose returns the call that client end c's process was serving when it made c,
// nil when there is none.
func (s *Settler) enclose(c *end) *end {
	if c.server || c.start == 0 || c.parent != nil || c.sought == s.seq {
		return c.parent
	}
	c.sought = s.seq
	served := s.procs[procKey{c.proc, true}]
	last := from(served, c.start+1)
	if last == 0 {
		return nil
	}
	peer := s.pair(c)
	if peer != nil && peer.proc == c.proc {
		return nil // a process that calls itself encloses everything it does
	}
	var best *end
	var bestFit fit
	for _, v := range served[max(0, last-maxOpen):last] {
		if f := encloseFit(v, c); f.betterThan(bestFit) {
			best, bestFit = v, f
		}
	}
	if best != nil {
		c.parent = best
		best.children = append(best.children, c)
	}
	return best
}
