// Package machine accounts for models on machines of one's own: what each cost by
// the hour, how busy it was, and what it served.
package machine

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/pricing"
)

// prices is the price book in force.
type prices interface{ Book() *pricing.Book }

// Ledger keeps a machine for each self-hosted provider of the price book whose cost
// the book states. It is safe for concurrent use.
type Ledger struct {
	prices prices
	now    func() time.Time

	mu       sync.Mutex
	machines map[string]*watch
}

// New begins with no machine; each is watched from its first call.
func New(p prices) *Ledger {
	return &Ledger{prices: p, now: time.Now, machines: map[string]*watch{}}
}

// Add counts a record that a self-hosted provider served. Only one record of a call
// that was seen more than once counts.
func (l *Ledger) Add(r *account.Record) {
	if !r.Counted || r.Call == nil || r.Price.Unpriced != pricing.ReasonSelfHosted {
		return
	}
	book, c := l.prices.Book(), r.Call
	id, ok := book.SelfHosted(c.ServerAddress, c.Path)
	if !ok {
		id = c.Provider
	}
	rate, ok := book.Hourly(id)
	if !ok {
		return
	}
	end := l.now()
	start := end
	if !r.Time.IsZero() && c.Times.End >= c.Times.Start && c.Times.Start != 0 {
		start = r.Time
		end = start.Add(time.Duration(c.Times.End - c.Times.Start))
	}
	input, _ := c.Usage.InputTotal()
	output, _ := c.Usage.OutputTotal()
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.machines[id]
	if m == nil || m.cost != rate { // a new rate begins a new account
		m = newWatch(rate, start)
		l.machines[id] = m
	}
	m.add(start, end, uint64(input), uint64(output))
}

// State is a machine's hours: the one before, when it was watched, and the one that
// runs.
type State struct {
	Provider string     `json:"provider"`
	Hours    []HourCost `json:"hours"`
	Late     uint64     `json:"late_calls,omitempty"` // ended before the hours that are kept
}

// States returns every machine, by the provider's id in the book.
func (l *Ledger) States() []State {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	out := make([]State, 0, len(l.machines))
	for _, id := range slices.Sorted(maps.Keys(l.machines)) {
		m := l.machines[id]
		out = append(out, State{id, m.costs(now), m.late})
	}
	return out
}
