package machine

import (
	"math/bits"
	"time"

	"github.com/tollwire/tollwire/pricing"
)

// slot is the resolution of busy time; a slot in which a call was open is busy.
const (
	slot         = 100 * time.Millisecond
	slotsPerHour = int(time.Hour / slot)
)

// watch spreads what a machine costs over the tokens it served, hour by hour of
// the clock. It keeps this hour and the one before, in constant memory; calls of
// older hours are counted as late and otherwise ignored.
type watch struct {
	cost  pricing.Hourly
	since time.Time // when it began to watch
	hours [2]hour   // the youngest first
	late  uint64
}

type hour struct {
	start time.Time
	busy  [(slotsPerHour + 63) / 64]uint64 // a bit a slot
	usage Served
}

// Served is what a machine did.
type Served struct {
	Calls  uint64 `json:"calls"`
	Input  uint64 `json:"input_tokens"`
	Output uint64 `json:"output_tokens"`
}

// newWatch begins to watch at now.
func newWatch(cost pricing.Hourly, now time.Time) *watch {
	m := &watch{cost: cost, since: now}
	m.hours[0].start = now.Truncate(time.Hour)
	return m
}

// add counts a call that was open from start to end. Calls that overlap make the
// machine busy once; one that crosses hours counts in each, its tokens where it ended.
func (m *watch) add(start, end time.Time, input, output uint64) {
	if end.Before(start) {
		start = end
	}
	m.turn(end)
	h := m.hour(end)
	if h == nil {
		m.late++
		return
	}
	h.usage.Calls++
	h.usage.Input += input
	h.usage.Output += output
	for i := range m.hours {
		m.hours[i].open(start, end)
	}
}

// turn opens the hour of t where it is younger than all.
func (m *watch) turn(t time.Time) {
	start := t.Truncate(time.Hour)
	switch young := m.hours[0].start; {
	case !start.After(young):
		return
	case start.Equal(young.Add(time.Hour)):
		m.hours[1] = m.hours[0]
	default: // hours without a call: the one before was idle
		m.hours[1] = hour{start: start.Add(-time.Hour)}
	}
	m.hours[0] = hour{start: start}
}

func (m *watch) hour(t time.Time) *hour {
	for i := range m.hours {
		if h := &m.hours[i]; !h.start.IsZero() && !t.Before(h.start) && t.Before(h.start.Add(time.Hour)) {
			return h
		}
	}
	return nil
}

// open marks the slots of this hour between start and end as busy.
func (h *hour) open(start, end time.Time) {
	if h.start.IsZero() || end.Before(h.start) || !start.Before(h.start.Add(time.Hour)) {
		return
	}
	from := max(0, int(start.Sub(h.start)/slot))
	to := min(slotsPerHour-1, int(end.Sub(h.start)/slot))
	for i := from; i <= to; i++ {
		h.busy[i/64] |= 1 << (i % 64)
	}
}

func (h *hour) busySlots() (n int) {
	for _, w := range h.busy {
		n += bits.OnesCount64(w)
	}
	return n
}

// HourCost is what an hour cost and what it was used for. A price a token never
// stands without the utilisation it is true for.
type HourCost struct {
	Start    time.Time     `json:"start"`
	Seconds  float64       `json:"seconds"` // of the hour that were watched
	Busy     float64       `json:"busy_seconds"`
	Served   Served        `json:"served"`
	Fixed    pricing.Money `json:"fixed_usd"`    // all of it, idle too
	Variable pricing.Money `json:"variable_usd"` // while busy
	Idle     pricing.Money `json:"idle_usd"`     // the part of Fixed in which nothing was served
	// PerMtok are nil where no token was served.
	PerMtok *PerMtok `json:"per_mtok,omitempty"`
}

// PerMtok is USD for a million tokens, input and output alike.
type PerMtok struct {
	Utilisation float64       `json:"utilisation"` // busy time / watched time
	Busy        pricing.Money `json:"busy_usd"`    // busy time's fixed and variable cost
	Full        pricing.Money `json:"full_usd"`    // with idle time
}

// costs returns the hour before, when it was watched, and the one that runs.
func (m *watch) costs(now time.Time) []HourCost {
	m.turn(now)
	var out []HourCost
	for i := len(m.hours) - 1; i >= 0; i-- {
		h := &m.hours[i]
		from, to := h.start, h.start.Add(time.Hour)
		if m.since.After(from) {
			from = m.since
		}
		if now.Before(to) {
			to = now
		}
		if h.start.IsZero() || !from.Before(to) {
			continue
		}
		out = append(out, h.cost(m.cost, from, to))
	}
	return out
}

func (h *hour) cost(rate pricing.Hourly, from, to time.Time) HourCost {
	watched := to.Sub(from)
	busy := min(time.Duration(h.busySlots())*slot, watched)
	part := func(m pricing.Money, d time.Duration) pricing.Money { return m.MulDiv(uint64(d), uint64(time.Hour)) }
	c := HourCost{
		Start: h.start, Seconds: watched.Seconds(), Busy: busy.Seconds(), Served: h.usage,
		Fixed: part(rate.Fixed, watched), Variable: part(rate.Variable, busy), Idle: part(rate.Fixed, watched-busy),
	}
	if tokens := h.usage.Input + h.usage.Output; tokens > 0 {
		per := func(m pricing.Money) pricing.Money { return m.MulDiv(1e6, tokens) }
		c.PerMtok = &PerMtok{
			Utilisation: float64(busy) / float64(watched),
			Busy:        per(c.Fixed.Sub(c.Idle).Add(c.Variable)),
			Full:        per(c.Fixed.Add(c.Variable)),
		}
	}
	return c
}
