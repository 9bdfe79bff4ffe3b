package account

import (
	"cmp"
	"strings"
	"time"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// end is what the settler knows of one end of an exchange. It outlives its record.
type end struct {
	r       *Record // nil once it went out
	seq     uint64  // order of arrival
	proc    flow.Proc
	conn    flow.Conn
	server  bool
	start   flow.Time
	stop    flow.Time
	due     flow.Time // when it may go out
	limit   flow.Time // when it must
	held    bool      // its owner or its other end is not known yet: looked for again at due
	awaited bool      // server: a call was open, when last looked, that may be its other end

	id, path, host, model, op, api, trace string

	status         int
	sent, answered int64 // body bytes on the wire
	in, out        float64
	hasUsage       bool
	cut            bool

	partner  *end   // the exchange's other end
	parent   *end   // client: the server end it was made for
	children []*end // server: the client ends made for it
	sought   uint64 // client: the parent was looked for among the ends up to this seq

	counted bool
	at      Trace
}

func newEnd(r *Record) *end {
	c := r.Call
	e := &end{
		r: r, proc: c.Conn.Proc, conn: c.Conn, server: c.Role == llm.RoleServer,
		start: c.Times.Start, stop: max(c.Times.End, c.Times.Start),
		id: c.ResponseID, path: c.Path, host: c.ServerAddress, model: c.RequestModel, op: c.Operation, api: c.API,
		status: c.Status, sent: c.RequestBytes, answered: c.ResponseBytes,
		hasUsage: c.Completeness != llm.Missing,
		cut:      c.Partial == llm.PartialCut || c.ErrorType == "cut" || c.ErrorType == "timeout",
	}
	e.trace, _, _ = ParseTraceparent(c.TraceParent)
	e.in, _ = c.Usage.InputTotal()
	e.out, _ = c.Usage.OutputTotal()
	return e
}

// procKey is the ends of one process that are of one kind.
type procKey struct {
	proc   flow.Proc
	server bool
}

func (e *end) procKey() procKey { return procKey{e.proc, e.server} }

// pairKey is what both ends of an exchange have in common, and which end it is.
type pairKey struct {
	server         bool
	path, id       string
	sent, answered int64
}

// anySize stands for the size of an answer that one side did not see to its end.
const anySize = -1

func (e *end) pairKeys() []pairKey {
	if e.start == 0 {
		return nil // a recording: nothing to compare
	}
	keys := []pairKey{{e.server, e.path, "", e.sent, e.answered}, {e.server, e.path, "", e.sent, anySize}}
	if e.id != "" {
		keys = append(keys, pairKey{e.server, e.path, e.id, 0, 0})
	}
	return keys
}

// fit is how well two ends go together: first the evidence, then the time, then the
// order of arrival, so that no two fits are equal and preferences never run in a ring.
type fit struct {
	evidence    int // 0: not at all
	off         time.Duration
	first, then uint64
}

func (f fit) betterThan(g fit) bool {
	if f.evidence == 0 || g.evidence == 0 {
		return f.evidence > 0
	}
	return cmp.Or(cmp.Compare(g.evidence, f.evidence), cmp.Compare(f.off, g.off),
		cmp.Compare(f.first, g.first), cmp.Compare(f.then, g.then)) < 0
}

// slack is how much later than its partner an end may seem to end: the last byte of
// one side and the moment a reader gave the body up differ by scheduling.
const slack = flow.Time(50 * time.Millisecond)

// pairFit compares client end c with server end v. A write is stamped at its entry
// and a read at its return, on one clock, so a server never starts first.
func pairFit(c, v *end) fit {
	off := v.start.Sub(c.start) + max(v.stop.Sub(c.stop), 0)
	switch {
	case v.start < c.start, v.start > c.stop, c.conn == v.conn:
		return fit{}
	case c.status != 0 && v.status != 0 && c.status != v.status, differ(c.id, v.id):
		return fit{}
	case c.id != "" && c.id == v.id:
		return fit{3, off, c.seq, v.seq}
	case differ(c.host, v.host), differ(c.model, v.model):
		return fit{}
	case (c.cut || v.cut) && c.sent == v.sent && c.sent > 0:
		return fit{1, v.start.Sub(c.start), c.seq, v.seq}
	case c.sent != v.sent || c.answered != v.answered || c.sent+c.answered == 0 || v.stop > c.stop+slack:
		return fit{}
	}
	return fit{2, off, c.seq, v.seq}
}

// mayPair compares client's call c, whose request is like that of server end v, and whose
// answer has not ended, with it.
func mayPair(c *llm.Call, v *end) bool {
	return c.Times.Start <= v.start && c.Conn != v.conn && !differ(c.ResponseID, v.id) &&
		!differ(c.ServerAddress, v.host) && !differ(c.RequestModel, v.model)
}

// differ reports whether both are known, and not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }

// encloseFit compares server end v with client end c of the same process. A call to a
// model is never part of one to another priced API, nor the other way round.
func encloseFit(v, c *end) fit {
	if c.api != v.api || c.start < v.start || c.start > v.stop || c.stop > v.stop+slack && !v.cut {
		return fit{}
	}
	off := c.start.Sub(v.start) + v.stop.Sub(c.stop).Abs()
	evidence := 0
	if c.id != "" && c.id == v.id || c.trace != "" && c.trace == v.trace {
		evidence += 8
	}
	if c.hasUsage && v.hasUsage && c.in == v.in && c.out == v.out && c.in+c.out > 0 {
		evidence += 4
	}
	if c.model != "" && c.model == v.model {
		evidence += 2
	}
	switch {
	case generates(c.op) == generates(v.op):
		evidence++
	case evidence < 4:
		return fit{}
	}
	return fit{evidence, off, c.seq, v.seq}
}

// generates tells operations that produce text from the others, so that an
// embedding made on the way is not taken for the answer itself.
func generates(op string) bool {
	return op == "" || op == "chat" || op == "text_completion" || strings.HasPrefix(op, "generate")
}
