package account

import (
	"slices"

	"github.com/tollwire/tollwire/llm"
)

// exchange is one request and its answer, with the ends of it that were seen.
type exchange struct {
	client, server *end
	parent         *exchange
	inner          []*exchange
}

// speaker is the end whose figures stand for the exchange: the client's when seen.
func (x *exchange) speaker() *end {
	if x.client != nil {
		return x.client
	}
	return x.server
}

// taken reports whether the exchange, or one that encloses it, was counted before.
func (x *exchange) taken() bool {
	for ; x != nil; x = x.parent {
		for _, e := range []*end{x.client, x.server} {
			if e != nil && e.r == nil && e.counted {
				return true
			}
		}
	}
	return false
}

// settle gives the records of one chain their place and sends them out. chain is in
// order of time and may hold ends that went out before.
func (s *Settler) settle(chain []*end) {
	exchanges := exchangesOf(chain)
	payers := payersOf(exchanges)
	root := exchanges[0].speaker()
	for _, e := range chain {
		if e.r == nil {
			continue
		}
		r := e.r
		e.counted = slices.Contains(payers, e)
		switch {
		case len(chain) == 1:
			r.Relay = RelayNone
		case e.counted:
			r.Relay = RelayPayer
			if root.r != nil && root.proc != e.proc && !root.server {
				origin := root.r.Owner
				r.Origin = &origin
			}
		case e == root && !e.server:
			r.Relay = RelayOrigin
		default:
			r.Relay = RelayHop
		}
		r.Counted = e.counted
		e.at = s.trace(e)
		r.Trace = e.at
	}
	s.count(chain)
	for _, e := range chain {
		if e.r != nil {
			r := e.r
			e.r = nil
			if s.nameless(r) {
				s.unowned.Add(1)
			}
			if s.cfg.Wait > 0 {
				s.known = append(s.known, e)
			}
			s.emit(r)
		}
	}
}

func (s *Settler) count(chain []*end) {
	late := slices.ContainsFunc(chain, func(e *end) bool { return e.r == nil })
	for _, e := range chain {
		switch {
		case e.r == nil:
		case len(chain) == 1:
			s.alone.Add(1)
		case late:
			s.late.Add(1)
		case !e.counted:
			s.joined.Add(1)
		}
	}
}

// exchangesOf joins the two ends of each exchange and nests exchanges; the outermost
// comes first.
func exchangesOf(chain []*end) []*exchange {
	of := make(map[*end]*exchange, len(chain))
	var all []*exchange
	for _, e := range chain {
		x := of[e]
		if x == nil && e.partner != nil {
			x = of[e.partner]
		}
		if x == nil {
			x = new(exchange)
			all = append(all, x)
		}
		of[e] = x
		if e.server {
			x.server = e
		} else {
			x.client = e
		}
	}
	for _, x := range all {
		if x.client != nil && x.client.parent != nil && of[x.client.parent] != nil {
			x.parent = of[x.client.parent]
			x.parent.inner = append(x.parent.inner, x)
		}
	}
	return all
}

// payersOf returns the ends whose tokens and money are summed: the innermost
// exchanges, where the provider states what it bills. Where none of those states any
// usage (a runner with a protocol of its own), the innermost that encloses them and does.
func payersOf(exchanges []*exchange) []*end {
	var leaves []*exchange
	stated := false
	for _, x := range exchanges {
		if len(x.inner) == 0 {
			leaves = append(leaves, x)
			stated = stated || x.speaker().hasUsage
		}
	}
	if !stated {
		for _, x := range slices.Backward(exchanges) {
			if len(x.inner) > 0 && x.speaker().hasUsage {
				leaves = []*exchange{x}
				break
			}
		}
	}
	var payers []*end
	for _, x := range leaves {
		if !x.taken() {
			payers = append(payers, x.speaker())
		}
	}
	return payers
}

// trace places e: under the span that its program named, else under the end that
// encloses it, else in a trace of its own. Ends that enclose e are placed before it.
func (s *Settler) trace(e *end) Trace {
	c := e.r.Call
	own, span := ids(s.cfg.Salt, e.r)
	outer := e.parent
	if e.server {
		outer = e.partner
	}
	if outer != nil && outer.at.TraceID == "" {
		outer = nil
	}
	id, parent, ok := ParseTraceparent(c.TraceParent)
	switch {
	case ok && outer != nil && c.Role == llm.RoleServer && outer.at.TraceID == id:
		return Trace{TraceID: id, SpanID: span, Parent: outer.at.SpanID, Source: "header"}
	case ok:
		return Trace{TraceID: id, SpanID: span, Parent: parent, Source: "header"}
	case outer != nil:
		return Trace{TraceID: outer.at.TraceID, SpanID: span, Parent: outer.at.SpanID, Source: outer.at.Source}
	}
	return Trace{TraceID: own, SpanID: span, Source: "agent"}
}
