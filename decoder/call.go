package decoder

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/decoder/coding"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// call drives one exchange: it asks the vendors whose it is, hands the winner what
// the framing reads, keeps the clocks, and settles the record. Framings know it as
// an exchange.Exchange.
type call struct {
	d                     *Decoder
	conn                  *conn
	number                uint32
	req                   *exchange.Request
	facts                 exchange.Facts
	state                 callState
	name                  string // the vendor's
	dec                   exchange.Decoder
	call                  *llm.Call
	reqOut                exchange.Outcome
	held                  int    // bytes that its connection is charged with
	asked                 asked  // as Decoder.asking knows it
	sized                 bool   // the response states its length
	contentType, encoding string // the response's
	clock                 clock
	data                  eventData // the event being read
	fault                 error     // of the response's content: the reader's or the JSON's
	done                  bool      // the vendor saw the stream's terminator
	over                  bool      // End was called
	unlimited             bool      // the response may be longer than the capture's limit
	expands               bool      // the request's content was too long to be decoded to its end
}

type callState uint8

const (
	undecided callState = iota
	ignored
	captured
)

// errPanic marks a panic of a vendor's code, which ends the call and nothing else.
var errPanic = errors.New("vendor panicked")

// begin asks the vendors for the first time.
func (c *conn) begin(req *exchange.Request, number uint32) *call {
	x := &call{d: c.d, conn: c, number: number, req: req}
	if _, sure := x.ask(); sure == exchange.No {
		x.ignore()
	} else {
		x.hold()
	}
	return x
}

// next begins the call that follows x on the same WebSocket.
func (x *call) next() *call {
	y := &call{d: x.d, conn: x.conn, number: x.number, req: x.req, facts: x.facts, unlimited: x.unlimited}
	if before, ok := x.dec.(exchange.Sequel); ok {
		y.open(x.name, before.Next)
	}
	x.held, y.held = 0, x.held
	return y
}

// open makes the record of the call, which decode then fills in.
func (x *call) open(vendor string, decode func(*llm.Call) exchange.Decoder) {
	x.state, x.name = captured, vendor
	x.call = x.newCall()
	x.safely(func() error {
		x.dec = decode(x.call)
		return nil
	})
}

// ask returns the surest vendor, the first in the table on a tie.
func (x *call) ask() (v exchange.Vendor, sure exchange.Confidence) {
	for _, candidate := range x.d.cfg.Vendors {
		if s := candidate.Recognize(x.req, &x.facts); s > sure {
			v, sure = candidate, s
		}
	}
	return v, sure
}

// ignore ends the interest in the exchange, and in what its head says.
func (x *call) ignore() {
	x.state = ignored
	x.release()
	x.req.Header = nil
	x.d.verdict(x.conn.id, x.number, flow.VerdictIgnore)
}

// unlimit has the kernel let the whole response cross: a stream comes as slowly as it is
// made, and says at its end what was used.
func (x *call) unlimit() {
	if !x.unlimited {
		x.unlimited = true
		x.d.verdict(x.conn.id, x.number, flow.VerdictCapture)
	}
}

// Ignored implements exchange.Exchange.
func (x *call) Ignored() bool { return x.state == ignored }

// decide asks the vendors once more, with all that is known of the request, and
// opens the call for the surest. A Maybe that the body made no surer is a no.
func (x *call) decide() {
	if x.state != undecided {
		return
	}
	v, sure := x.ask()
	if sure <= exchange.Maybe {
		x.ignore()
		return
	}
	x.hold()
	x.open(v.Name(), func(c *llm.Call) exchange.Decoder { return v.Open(x.req, &x.facts, c) })
}

// RequestBody implements exchange.Exchange.
func (x *call) RequestBody(b exchange.Body) {
	if x.state == ignored {
		return
	}
	err := x.safely(func() error {
		content, err := coding.Open(x.req.Header.Get("Content-Encoding"), b)
		if err != nil {
			return err
		}
		return x.d.cfg.ReadFacts(content, x.req.Header.Get("Content-Type"), &x.facts)
	})
	x.expands = errors.Is(err, coding.ErrExpands)
	x.d.failedBody("request_body", err)
}

// RequestEnd implements exchange.Exchange.
func (x *call) RequestEnd(o exchange.Outcome) {
	if x.over {
		return
	}
	x.reqOut = o
	x.decide()
	if x.state == captured && x.call.Role == llm.RoleClient {
		x.d.asking.add(x)
	}
}

// RequestSoFar implements exchange.Exchange.
func (x *call) RequestSoFar(o exchange.Outcome) {
	o.Err = exchange.ErrCut
	x.reqOut = o
}

// Response implements exchange.Exchange.
func (x *call) Response(r *exchange.Response) {
	x.decide()
	if x.state == ignored {
		return
	}
	x.call.Status = r.Status
	x.call.Times.FirstByte = r.Time
	x.call.RateLimit = x.d.rateLimits(r.Header)
	x.contentType, _, _ = mime.ParseMediaType(r.Header.Get("Content-Type"))
	x.encoding, x.sized = r.Header.Get("Content-Encoding"), r.Header.Get("Content-Length") != ""
	x.vendor(func() error { x.dec.Response(r); return nil })
}

// ResponseBody implements exchange.Exchange.
func (x *call) ResponseBody(b exchange.Body) {
	if x.state != captured || x.over {
		return
	}
	x.vendor(func() error {
		content, err := coding.Open(x.encoding, b)
		if err != nil {
			return err
		}
		return x.read(content)
	})
}

// End implements exchange.Exchange. It settles the record and hands it on.
func (x *call) End(o exchange.Outcome) {
	if x.over {
		return
	}
	x.decide()
	x.over = true
	x.d.asking.remove(x)
	if x.conn.session == nil { // else what follows holds the same
		x.release()
	}
	if x.state != captured {
		return
	}
	err := x.fault
	if err == nil || o.Err != nil && !skipped(err) {
		err = o.Err
	}
	if x.done && !skipped(x.fault) { // whatever is missing is none of the call's
		err = nil
	}
	x.d.failedBody("response_body", err)
	if x.dec != nil {
		if p := x.safely(func() error { x.dec.End(err); return nil }); p != nil {
			err = p
		}
	}
	x.settle(o, err)
	x.d.emit(x.call)
}

// settle labels the call by how it ended. err is nil when the response came whole.
//
// This is the one place that says when usage is exact although bytes are missing:
// what the vendor took for final stands only if the response ended in order, or its
// terminator had been seen. After a cut or a hole a later statement may have been
// missed, so what was read is an estimate, whatever the vendor thinks.
func (x *call) settle(o exchange.Outcome, err error) {
	c := x.call
	c.Times.RequestEnd = x.reqOut.Time
	c.Times.End = o.Time
	x.clock.stamp(&c.Times)
	c.RequestBytes, c.ResponseBytes = x.reqOut.Bytes, o.Bytes
	c.LostBytes = x.reqOut.Lost + o.Lost

	for _, m := range []exchange.Outcome{x.reqOut, o} {
		if m.Late {
			worsen(c, llm.PartialLateAttach)
		}
		switch {
		case m.Lost > 0 && m.Reason == flow.GapOverLimit:
			worsen(c, llm.PartialOverLimit)
		case m.Lost > 0:
			worsen(c, llm.PartialLost)
		}
	}
	over := !x.unlimited && x.overLimit(o)
	switch {
	case errors.Is(err, exchange.ErrLost):
		if o.Lost == 0 && !x.reqOut.Late { // it was being read when the tap came
			worsen(c, llm.PartialLost)
		}
	case errors.Is(err, errPanic), errors.Is(err, errEvicted):
		worsen(c, llm.PartialLost)
	case over || x.expands || x.overLimit(x.reqOut) || errors.Is(err, coding.ErrExpands):
		worsen(c, llm.PartialOverLimit)
	case errors.Is(err, exchange.ErrCut), errors.Is(x.reqOut.Err, exchange.ErrCut):
		worsen(c, llm.PartialCut)
	}
	if err != nil && c.Completeness == llm.Exact && c.API == "" { // a priced API's one request was seen
		c.Completeness, c.UsageSource = llm.Estimated, llm.SourceStreamPartial
	}
	if c.ErrorType == "" && !over {
		c.ErrorType = errorType(c.Status, err)
	}
}

// skipped tells the faults at which content was left out from all others: what follows
// does not make up for it.
func skipped(err error) bool {
	return errors.Is(err, exchange.ErrLost) || errors.Is(err, coding.ErrExpands)
}

// overLimit reports whether a message that was cut was cut by the capture's own limit:
// the kernel tells of what it left out only with the bytes that follow.
func (x *call) overLimit(o exchange.Outcome) bool {
	return errors.Is(o.Err, exchange.ErrCut) && o.Wire >= x.d.cfg.BodyLimit
}

func errorType(status int, err error) string {
	switch {
	case status >= 400:
		return strconv.Itoa(status)
	case errors.Is(err, stream.ErrTimeout):
		return "timeout"
	case errors.Is(err, errEvicted): // is ours, not the call's
		return ""
	case errors.Is(err, exchange.ErrCut):
		return "cut"
	}
	return ""
}

// worsen sets the label unless a worse one stands.
func worsen(c *llm.Call, p llm.Partial) {
	rank := func(p llm.Partial) int {
		for i, q := range []llm.Partial{llm.PartialNone, llm.PartialLateAttach, llm.PartialOverLimit, llm.PartialCut, llm.PartialLost} {
			if p == q {
				return i
			}
		}
		return 0
	}
	if rank(p) > rank(c.Partial) {
		c.Partial = p
	}
}

// vendor runs code of the vendor and keeps its error.
func (x *call) vendor(f func() error) {
	if x.dec == nil {
		return
	}
	if err := x.safely(f); err != nil && x.fault == nil {
		x.fault = err
	}
}

// safely turns a panic into an error. Bytes come from the network; a bug that they
// find must cost one call, not the agent.
func (x *call) safely(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			x.d.panicked(v)
			err = fmt.Errorf("%w: %v", errPanic, v)
		}
	}()
	return f()
}

// newCall fills what the head and the connection say.
func (x *call) newCall() *llm.Call {
	h := x.req.Header
	c := &llm.Call{
		Conn: x.conn.id, Source: x.conn.source, Cgroup: x.conn.cgroup, Role: x.conn.role(),
		Vendor: x.name, Method: names.Of(x.req.Method), Path: x.req.Path,
		Headers:     allowed(h, x.d.cfg.AllowHeaders),
		TraceParent: bounded(h.Get("Traceparent")),
		Baggage:     members(h, x.d.cfg.AllowBaggage),
		APIKey:      x.d.keyed(credential(x.req)),
		RetryGroup:  group(x.d.keyed(first(h, "Amz-Sdk-Invocation-Id", "Idempotency-Key", "X-Idempotency-Key"))),
	}
	c.Times.Start = x.req.Time
	if x.conn.peer.IsValid() {
		c.Peer = x.conn.peer.String()
	}
	c.ServerAddress, c.ServerPort = x.server(c.Role)
	if n, err := strconv.Atoi(h.Get("X-Stainless-Retry-Count")); err == nil && n >= 0 {
		c.RetryCount = n
	} else if n := attempt(h.Get("Amz-Sdk-Request")); n > 1 {
		c.RetryCount = n - 1
	}
	return c
}

// server is the address that the request was made to: its Host, else the peer of a client.
func (x *call) server(role llm.Role) (host string, port int) {
	host, p, err := net.SplitHostPort(x.req.Host)
	if err != nil {
		host = strings.Trim(x.req.Host, "[]")
	}
	host = names.Of(host)
	port, _ = strconv.Atoi(p)
	if role == llm.RoleClient && x.conn.peer.IsValid() {
		if host == "" {
			host = x.conn.peer.Addr().Unmap().String()
		}
		if port == 0 {
			port = int(x.conn.peer.Port())
		}
	}
	if port == 0 && host != "" {
		switch x.conn.source {
		case flow.SourceSocketTracepoint, flow.SourceSocketKprobe, flow.SourceSocketFentry:
			port = 80
		default:
			port = 443
		}
	}
	return host, port
}

// maxValue bounds a header's value that is kept, in bytes.
const maxValue = 1 << 10

func bounded(s string) string { return names.Cut(s, maxValue) }

func first(h http.Header, names ...string) string {
	for _, n := range names {
		if v := h.Get(n); v != "" {
			return v
		}
	}
	return ""
}

func allowed(h http.Header, names []string) map[string]string {
	var out map[string]string
	for _, n := range names {
		if v := h.Values(n); len(v) > 0 {
			if out == nil {
				out = make(map[string]string)
			}
			out[strings.ToLower(n)] = bounded(strings.Join(v, ", "))
		}
	}
	return out
}

// members returns the members of a request's baggage that have one of the keys, as many
// as there is room for.
func members(h http.Header, keys []string) string {
	var kept []string
	room := maxValue
	for _, list := range h.Values("Baggage") {
		for m := range strings.SplitSeq(list, ",") {
			k, _, ok := strings.Cut(m, "=")
			if ok && slices.Contains(keys, strings.TrimSpace(k)) && len(m) < room {
				kept = append(kept, m)
				room -= len(m) + 1
			}
		}
	}
	return strings.Join(kept, ",")
}

// credential returns what tells whose key a request is made with: the key itself, without
// its scheme. Of a signature by AWS, which is another each time, it is the access key's id.
// Gemini and Azure take a key in the query too, AWS a signature.
func credential(req *exchange.Request) string {
	s := first(req.Header, "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key")
	scheme, token, ok := strings.Cut(s, " ")
	switch {
	case ok && strings.EqualFold(scheme, "bearer"):
		return strings.TrimSpace(token)
	case strings.HasPrefix(scheme, "AWS4-"): // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
		_, scope, _ := strings.Cut(token, "Credential=")
		id, _, _ := strings.Cut(scope, "/")
		return strings.TrimSpace(id)
	case s != "" || req.Query == "":
		return s
	}
	query, _ := url.ParseQuery(req.Query) // what of it can be read
	id, _, _ := strings.Cut(query.Get("X-Amz-Credential"), "/")
	return cmp.Or(query.Get("key"), query.Get("api-key"), query.Get("subscription-key"), id)
}

// keyed returns the keyed hash of what must not be kept itself, nil without it or without
// a key.
func (d *Decoder) keyed(secret string) []byte {
	if secret == "" || len(d.cfg.KeySecret) == 0 {
		return nil
	}
	m := hmac.New(sha256.New, d.cfg.KeySecret)
	io.WriteString(m, secret)
	return m.Sum(nil)
}

// group is the id of a group of tries: a program may make one of anything, so it is hashed.
func group(hash []byte) string { return hex.EncodeToString(hash[:min(len(hash), 16)]) }

// attempt reads "attempt=2; max=3".
func attempt(s string) int {
	for part := range strings.SplitSeq(s, ";") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(part), "attempt="); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}

// What is kept of a response's rate limits: so many fields, and bytes of all together.
const (
	maxLimits     = 32
	maxLimitBytes = 4 << 10
)

// limits begin the names of the fields that tell of rate limits, as http.Header spells
// them: OpenAI's and most others', Anthropic's, Mistral's and the IETF draft's, and what
// follows a refusal.
var limits = []string{"X-Ratelimit-", "Anthropic-Ratelimit-", "Ratelimit", "Retry-After", "X-Should-Retry"}

// rateLimits keeps what the provider says of its limits, by name as long as there is
// room. A field is kept whole or not at all; that one was not is counted.
func (d *Decoder) rateLimits(h http.Header) (kept map[string]string) {
	var fields []string
	for name, v := range h {
		of := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		if slices.ContainsFunc(limits, of) && len(v) > 0 {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	room, cut := maxLimitBytes, false
	for _, name := range fields {
		v := names.Cut(h[name][0], maxLimitBytes+1)
		name = names.Cut(strings.ToLower(name), maxLimitBytes+1)
		if len(kept) == maxLimits || len(name)+len(v) > room {
			cut = true
			continue
		}
		if kept == nil {
			kept = make(map[string]string)
		}
		room -= len(name) + len(v)
		kept[name] = v
	}
	if cut {
		d.fail("rate_limits_cut")
	}
	return kept
}
