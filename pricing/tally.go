package pricing

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/tollwire/tollwire/llm"
)

// UnpricedModel is a model of which calls had no price, and how much went through.
type UnpricedModel struct {
	Provider string `json:"provider,omitempty"`
	Host     string `json:"host,omitempty"`
	Model    string `json:"model,omitempty"`
	Reason   string `json:"reason"`
	Calls    uint64 `json:"calls"`
	Tokens   uint64 `json:"tokens"`
}

// maxTally bounds the models a Tally tells apart; the lightest makes room.
const maxTally = 256

// Tally counts calls without a price by model and reason, in bounded memory. When
// it is full, a new model takes the place of the one with the fewest tokens, whose
// counts are lost. The zero value is empty.
type Tally struct {
	mu sync.Mutex
	by map[tallyKey]*UnpricedModel
}

type tallyKey struct{ provider, host, model, reason string }

// Add counts a call that had no price for that reason.
func (t *Tally) Add(q *Query, reason string) {
	model := q.Model
	if model == "" {
		model = q.RequestModel
	}
	if len(model) > 256 {
		model = model[:256]
	}
	var tokens uint64
	if q.Usage != nil {
		for c := range llm.NumClasses {
			if c.IsToken() {
				tokens += uint64(q.Usage.Get(c))
			}
		}
	}
	key := tallyKey{q.Provider, q.Host, model, reason}
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.by[key]
	if m == nil {
		if t.by == nil {
			t.by = make(map[tallyKey]*UnpricedModel)
		}
		if len(t.by) >= maxTally {
			t.evict()
		}
		key = tallyKey{strings.Clone(key.provider), strings.Clone(key.host), strings.Clone(key.model), reason}
		m = &UnpricedModel{Provider: key.provider, Host: key.host, Model: key.model, Reason: reason}
		t.by[key] = m
	}
	m.Calls++
	m.Tokens += tokens
}

func (t *Tally) evict() {
	var lightest tallyKey
	var least *UnpricedModel
	for k, m := range t.by {
		if least == nil || heavier(least, m) < 0 {
			lightest, least = k, m
		}
	}
	delete(t.by, lightest)
}

// Top returns what was counted, the most tokens first.
func (t *Tally) Top() []UnpricedModel {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]UnpricedModel, 0, len(t.by))
	for _, m := range t.by {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b UnpricedModel) int { return heavier(&a, &b) })
	return out
}

// heavier orders by tokens, then calls, then name.
func heavier(a, b *UnpricedModel) int {
	return cmp.Or(cmp.Compare(b.Tokens, a.Tokens), cmp.Compare(b.Calls, a.Calls),
		cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Reason, b.Reason))
}
