package pricing

import (
	"net/http"
	"slices"
)

// api is a priced HTTP API that is no model: a geocoder, a search.
type api struct {
	when
	name      string
	endpoints []endpoint
	methods   []string // empty: any
	failures  bool     // calls that fail are billed too
	each      Money
}

func (a *api) means(host, path, method string) bool {
	return (len(a.methods) == 0 || slices.Contains(a.methods, method)) &&
		slices.ContainsFunc(a.endpoints, func(e endpoint) bool { return e.match(host, path) })
}

// API names the priced API that a request is made to, by the first rule that means
// it, at whatever time that holds; "" where none does. The host is in lower case and
// without the port.
func (b *Book) API(host, path, method string) string {
	for _, a := range b.apis {
		if a.means(host, path, method) {
			return a.name
		}
	}
	return ""
}

// HasAPIs reports whether the book prices any.
func (b *Book) HasAPIs() bool { return len(b.apis) > 0 }

// priceAPI prices an exchange with a priced API by the first rule that means it and
// holds. An answer of 400 and above costs nothing unless the rule says so; one that
// was not seen might be either.
func (b *Book) priceAPI(q *Query) Price {
	out := Price{Version: b.version}
	m := b.moment(nil, q)
	i := slices.IndexFunc(b.apis, func(a *api) bool { return a.timeHolds(&m) && a.means(q.Host, q.Path, q.Method) })
	switch {
	case i < 0:
		out.Unpriced = ReasonNoPriceAtTime
	case b.apis[i].failures, q.Status != 0 && q.Status < http.StatusBadRequest:
		out.USD, out.Source = b.apis[i].each, SourceOverride
	case q.Status == 0:
		out.Unpriced = ReasonNoAnswer
	default:
		out.Source = SourceOverride
	}
	return out
}
