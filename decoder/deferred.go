package decoder

import (
	"slices"
	"sync"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

const (
	maxDeferred = 1024 // calls that wait for their answer; the oldest goes out without it
	maxFetched  = 4096 // answers that are known to be counted
)

// Deferred joins the answers that programs fetch later (Responses in the background,
// Replicate's predictions) to the calls that asked for them: one record for the two,
// however often the answer is fetched. The decoders of all shards share one, because
// a program may ask and fetch on different connections.
type Deferred struct {
	mu      sync.Mutex
	waiting map[deferral]*waiting
	oldest  []*waiting // in order; those that were answered stay until there are many
	fetched map[deferral]struct{}
	order   []deferral // of fetched
}

// deferral is what the call that asks and the one that fetches have in common. Both ends
// of an exchange may be on this node, each with its own record.
type deferral struct {
	role       llm.Role
	server, id string
}

type waiting struct {
	deferral
	c     *llm.Call // nil once it went out
	since flow.Time
}

// NewDeferred returns a Deferred that holds nothing.
func NewDeferred() *Deferred {
	return &Deferred{waiting: make(map[deferral]*waiting), fetched: make(map[deferral]struct{})}
}

// add takes a finished call and hands on what is to be counted now. A nil Deferred
// holds nothing back: a call then goes out without its answer, and the answer again.
func (d *Deferred) add(c *llm.Call, now flow.Time, emit func(*llm.Call)) {
	if c.Deferred == llm.DeferredWaiting {
		return
	}
	if d == nil || c.Deferred == llm.NotDeferred || c.ResponseID == "" {
		emit(c)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := deferral{c.Role, c.ServerAddress, c.ResponseID}
	if _, again := d.fetched[key]; again {
		return
	}
	w := d.waiting[key]
	if c.Deferred == llm.DeferredAsked {
		if w != nil {
			emit(c) // an id that isn't one
			return
		}
		for len(d.waiting) >= maxDeferred {
			d.pop(emit)
		}
		w = &waiting{deferral: key, c: c, since: now}
		d.waiting[key], d.oldest = w, append(d.oldest, w)
		return
	}
	if len(d.order) == maxFetched {
		delete(d.fetched, d.order[0])
		d.order = d.order[1:]
	}
	d.fetched[key], d.order = struct{}{}, append(d.order, key)
	if w == nil {
		emit(c) // it was asked for before the agent was there, or by another node
		return
	}
	answered := w.c
	w.c = nil
	delete(d.waiting, key)
	if len(d.oldest) > 2*maxDeferred {
		d.oldest = slices.DeleteFunc(d.oldest, func(w *waiting) bool { return w.c == nil })
	}
	fetch(answered, c)
	emit(answered)
}

// expire hands on the calls that have waited since before then without an answer.
func (d *Deferred) expire(then flow.Time, emit func(*llm.Call)) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.oldest) > 0 && (d.oldest[0].c == nil || d.oldest[0].since <= then) {
		d.pop(emit)
	}
}

// pop hands on the call that has waited longest.
func (d *Deferred) pop(emit func(*llm.Call)) {
	w := d.oldest[0]
	d.oldest = d.oldest[1:]
	if w.c != nil {
		delete(d.waiting, w.deferral)
		emit(w.c)
		w.c = nil
	}
}

// fetch takes over what the fetched answer says of the call.
func fetch(c, answer *llm.Call) {
	if answer.ResponseModel != "" {
		c.ResponseModel = answer.ResponseModel
	}
	if answer.ServiceTier != "" {
		c.ServiceTier = answer.ServiceTier
	}
	if !answer.Usage.Empty() {
		c.Usage, c.Completeness, c.UsageSource = answer.Usage, answer.Completeness, answer.UsageSource
	}
	if answer.StatedCost != "" {
		c.StatedCost, c.StatedCostSource = answer.StatedCost, answer.StatedCostSource
	}
	c.FinishReasons, c.Disagreement, c.ToolCalls, c.Quality = answer.FinishReasons, answer.Disagreement, answer.ToolCalls, answer.Quality
	c.Cost.ToolRequests = answer.Cost.ToolRequests
	c.ErrorType, c.InBandError, c.Partial = answer.ErrorType, answer.InBandError, answer.Partial
	c.Times.End = answer.Times.End
	c.ResponseBytes += answer.ResponseBytes
	c.LostBytes += answer.LostBytes
}
