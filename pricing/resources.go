package pricing

import (
	"net/http"
	"slices"
	"time"
)

// Resources are a node's own rates, from the config: what is not set costs nothing.
type Resources struct {
	CPUSecond     Money
	MemoryGiBHour Money
	NetworkGiB    Money
}

// Use is what a cgroup used of a machine.
type Use struct {
	CPU           time.Duration // of all its processors together
	MemoryGiBHour float64       // resident, integrated over time
	NetworkBytes  uint64        // both directions
}

// Zero reports whether no rate is set.
func (r Resources) Zero() bool { return r == Resources{} }

// Cost prices use.
func (r Resources) Cost(u Use) Money {
	cpu := r.CPUSecond.mulDiv(uint64(max(u.CPU, 0)), uint64(time.Second))
	memory := times(r.MemoryGiBHour, max(u.MemoryGiBHour, 0))
	return cpu.Add(memory).Add(r.NetworkGiB.mulDiv(u.NetworkBytes, 1<<30))
}

// api is a priced HTTP API that is no model: a geocoder, a search.
type api struct {
	when
	at        place
	name      string
	endpoints []endpoint
	methods   []string // empty: any
	failures  bool     // calls that fail are billed too
	each      Money
}

// APIQuery is an HTTP exchange that is no call to a model.
type APIQuery struct {
	Host, Path, Method string
	Status             int
	At                 time.Time
}

// PriceAPI prices an exchange with a priced API by the first rule of the book that
// means it, and names the API. It returns false when no rule does.
func (b *Book) PriceAPI(q APIQuery) (name string, p Price, ok bool) {
	m := moment{at: q.At, unix: q.At.Unix()}
	if q.At.IsZero() {
		m.at, m.unix = b.date, b.date.Unix()
	}
	for _, a := range b.apis {
		if !a.timeHolds(&m) || len(a.methods) > 0 && !slices.Contains(a.methods, q.Method) ||
			!slices.ContainsFunc(a.endpoints, func(e endpoint) bool { return e.match(q.Host, q.Path) }) {
			continue
		}
		p = Price{Source: SourceOverride, Version: b.version}
		if q.Status < http.StatusBadRequest || a.failures {
			p.USD = a.each
		}
		return a.name, p, true
	}
	return "", Price{}, false
}

// APIEndpoints are the hosts (globs) and path prefixes of the priced APIs, for whoever
// decides which exchanges are worth a look.
func (b *Book) APIEndpoints() (out []string) {
	for _, a := range b.apis {
		for _, e := range a.endpoints {
			out = append(out, e.String())
		}
	}
	return out
}

// Resources returns the node's rates.
func (b *Book) Resources() Resources { return b.resources }

// Hourly returns what the provider's machine costs, and false where the config does
// not say or it is not self-hosted.
func (b *Book) Hourly(provider string) (Hourly, bool) {
	p := b.byName[lower(provider)]
	if p == nil || p.hourly == nil {
		return Hourly{}, false
	}
	return *p.hourly, true
}

// SelfHosted returns the provider that a host and path belong to when it is paid by
// the hour.
func (b *Book) SelfHosted(host, path string) (provider string, ok bool) {
	if p := b.owner(host, path, nil); p != nil && p.selfHosted {
		return p.id, true
	}
	return "", false
}
