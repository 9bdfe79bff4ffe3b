// Package unpriced remembers the models that the price book should know and does not.
package unpriced

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

// Model is a model of which calls had no price, and how much went through. Of a priced
// HTTP API, Model is its name.
type Model struct {
	Provider string `json:"provider,omitempty"`
	Host     string `json:"host,omitempty"`
	Model    string `json:"model,omitempty"`
	Reason   string `json:"reason"`
	Calls    uint64 `json:"calls"`
	Tokens   uint64 `json:"tokens"`
}

const (
	// maxModels bounds the models that are told apart; the lightest makes room.
	maxModels = 256
	// maxName bounds a name off the wire, in bytes.
	maxName = 256
)

// Tally counts by model and reason, in bounded memory. When it is full, a new model
// takes the place of the one with the fewest tokens, whose counts are lost. The zero
// value is empty; it is safe for concurrent use.
type Tally struct {
	mu sync.Mutex
	by map[key]*Model
}

type key struct{ provider, host, model, reason string }

// Add counts a record whose price is missing because of a gap in the book or the
// config. Only one record of a call that was seen more than once counts.
func (t *Tally) Add(r *account.Record) {
	reason := r.Price.Unpriced
	if !r.Counted || !pricing.Gap(reason) {
		return
	}
	c := r.Call
	name := cmp.Or(c.ResponseModel, c.RequestModel, c.API)
	k := key{c.Provider, c.ServerAddress, name[:min(len(name), maxName)], reason}
	tokens, _ := c.Usage.Sum(llm.Class.IsToken)
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.by[k]
	if m == nil {
		if t.by == nil {
			t.by = make(map[key]*Model)
		}
		if len(t.by) >= maxModels {
			t.evict()
		}
		k.model = strings.Clone(k.model) // not all of a long name
		m = &Model{Provider: k.provider, Host: k.host, Model: k.model, Reason: reason}
		t.by[k] = m
	}
	m.Calls++
	m.Tokens += uint64(tokens)
}

func (t *Tally) evict() {
	var lightest key
	var least *Model
	for k, m := range t.by {
		if least == nil || heavier(least, m) < 0 {
			lightest, least = k, m
		}
	}
	delete(t.by, lightest)
}

// Top returns what was counted, the most tokens first.
func (t *Tally) Top() []Model {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Model, 0, len(t.by))
	for _, m := range t.by {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Model) int { return heavier(&a, &b) })
	return out
}

// heavier orders by tokens, then calls, then name.
func heavier(a, b *Model) int {
	return cmp.Or(cmp.Compare(b.Tokens, a.Tokens), cmp.Compare(b.Calls, a.Calls),
		cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Reason, b.Reason))
}
