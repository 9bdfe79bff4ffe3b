package http

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/tollwire/tollwire/account"
)

// Unpriced keeps the models that most calls without a price went to, in bounded
// memory: what an operator adds to the price book first.
type Unpriced struct {
	mu     sync.Mutex
	models map[modelKey]*UnpricedModel
}

type modelKey struct{ provider, model, reason string }

// UnpricedModel is one line of the list.
type UnpricedModel struct {
	Provider string    `json:"provider"`
	Model    string    `json:"model"`
	Reason   string    `json:"reason"`
	Calls    uint64    `json:"calls"` // at most Over too many
	Over     uint64    `json:"over,omitempty"`
	Tokens   float64   `json:"tokens"`
	Last     time.Time `json:"last"`
}

// maxModels is how many are kept. Past it the one with the fewest calls gives its
// place and its count to the new one (the space-saving algorithm), so that one seen
// often is never missed, whatever else a client invents.
const maxModels = 256

// maxModelName cuts names off the wire.
const maxModelName = 160

// Export counts r when it has no price.
func (u *Unpriced) Export(r *account.Record) {
	if !r.Counted || r.Price.Unpriced == "" {
		return
	}
	c := r.Call
	model := cmp.Or(c.ResponseModel, c.RequestModel)
	k := modelKey{c.Provider, model[:min(len(model), maxModelName)], r.Price.Unpriced}
	in, _ := c.Usage.InputTotal()
	out, _ := c.Usage.OutputTotal()

	u.mu.Lock()
	defer u.mu.Unlock()
	m := u.models[k]
	if m == nil {
		m = &UnpricedModel{Provider: k.provider, Model: k.model, Reason: k.reason}
		if u.models == nil {
			u.models = make(map[modelKey]*UnpricedModel)
		}
		if len(u.models) >= maxModels {
			m.Calls = u.evict()
			m.Over = m.Calls
		}
		u.models[k] = m
	}
	m.Calls++
	m.Tokens += in + out
	m.Last = r.Time
}

func (u *Unpriced) evict() uint64 {
	var least modelKey
	var n *UnpricedModel
	for k, m := range u.models {
		if n == nil || m.Calls < n.Calls {
			least, n = k, m
		}
	}
	delete(u.models, least)
	return n.Calls
}

// List returns the models, the most called first.
func (u *Unpriced) List() []UnpricedModel {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make([]UnpricedModel, 0, len(u.models))
	for _, m := range u.models {
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b UnpricedModel) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}
