package account_test

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/llm"
)

type option = func(*account.Record)

const ms = time.Millisecond

// call is one record of a scenario: named, from and to that long after a second
// past the epoch.
func call(name string, from, to time.Duration, o ...option) *account.Record {
	r := recordtest.New(recordtest.Move(from), recordtest.Last(to-from))
	for _, f := range o {
		f(r)
	}
	r.Call.SourceID = name
	return r
}

func sizes(sent, answered int64) option {
	return func(r *account.Record) { r.Call.RequestBytes, r.Call.ResponseBytes = sent, answered }
}

func conn(key uint64) option { return func(r *account.Record) { r.Call.Conn.Key = key } }

func status(n int) option {
	return func(r *account.Record) { r.Call.Status = n; r.Call.ErrorType = fmt.Sprint(n); noUsage(r) }
}

func noUsage(r *account.Record) {
	r.Call.Usage, r.Call.Completeness, r.Call.UsageSource = llm.Usage{}, llm.Missing, ""
}

func path(p string) option { return func(r *account.Record) { r.Call.Path = p } }

func model(m string) option {
	return func(r *account.Record) { r.Call.RequestModel, r.Call.ResponseModel = m, m }
}

func traceparent(h string) option { return func(r *account.Record) { r.Call.TraceParent = h } }

var (
	client = recordtest.Process
	server = recordtest.Server
	id     = recordtest.ID
)

// scenarios say for each record "name relay", with * where it is counted.
var scenarios = []struct {
	name  string
	calls func() []*account.Record
	want  string
}{
	{"one end", func() []*account.Record {
		return []*account.Record{call("c", 0, 100*ms)}
	}, "c * "},
	{"only the server", func() []*account.Record {
		return []*account.Record{call("s", 0, 100*ms, server(9))}
	}, "s * "},
	{"two ends by id, sizes unlike", func() []*account.Record {
		return []*account.Record{
			call("c", 0, 100*ms, client(1), sizes(100, 200)),
			call("s", 1*ms, 99*ms, server(9), sizes(100, 260)),
		}
	}, "c payer*, s hop"},
	{"two ends by size, no id", func() []*account.Record {
		return []*account.Record{
			call("c", 0, 100*ms, client(1), id("")),
			call("s", 1*ms, 99*ms, server(9), id("")),
		}
	}, "c payer*, s hop"},
	{"two errors without ids or bodies stay apart", func() []*account.Record {
		return []*account.Record{
			call("c", 0, 100*ms, client(1), id(""), sizes(0, 0), status(429)),
			call("s", 1*ms, 99*ms, server(9), id(""), sizes(0, 0), status(429)),
		}
	}, "c * , s * "},
	{"same sizes, other answer", func() []*account.Record {
		return []*account.Record{
			call("c", 0, 100*ms, client(1), id("a")),
			call("s", 1*ms, 99*ms, server(9), id("b")),
		}
	}, "c * , s * "},
	{"server began first", func() []*account.Record {
		return []*account.Record{
			call("s", 0, 100*ms, server(9)),
			call("c", 1*ms, 99*ms, client(1)),
		}
	}, "s * , c * "},
	{"alike and at once", func() []*account.Record {
		return []*account.Record{
			call("c1", 0, 100*ms, client(1), id("")),
			call("c2", 1*ms, 101*ms, client(2), id("")),
			call("s1", 2*ms, 99*ms, server(9), id(""), conn(1)),
			call("s2", 3*ms, 100*ms, server(9), id(""), conn(2)),
		}
	}, "c1 payer*, c2 payer*, s1 hop, s2 hop"},
	{"a geocoder asked while a call is served is none of it", func() []*account.Record {
		geocoder := func(r *account.Record) { r.Call.API, r.Call.Operation = "geocoder", ""; model("")(r) }
		return []*account.Record{
			call("c", 0, 100*ms, client(1), id("a")),
			call("s", 1*ms, 99*ms, server(9), id("a")),
			call("g", 10*ms, 20*ms, client(9), id(""), path("/geocode"), conn(2), geocoder),
		}
	}, "c payer*, s hop, g *"},
	{"a proxy of a geocoder", func() []*account.Record {
		geocoder := func(r *account.Record) { r.Call.API, r.Call.Operation = "geocoder", ""; model("")(r) }
		return []*account.Record{
			call("s", 0, 100*ms, server(9), id(""), path("/geocode"), geocoder),
			call("c", 10*ms, 80*ms, client(9), id(""), path("/geocode"), conn(2), geocoder),
		}
	}, "s hop, c payer*"},
	{"both ends in one process", func() []*account.Record {
		return []*account.Record{
			call("c1", 0, 100*ms, client(1), conn(1), id("a")),
			call("s1", 1*ms, 99*ms, server(1), conn(2), id("a")),
			call("c2", 10*ms, 80*ms, client(1), conn(3), id("b")),
			call("s2", 11*ms, 79*ms, server(1), conn(4), id("b")),
		}
	}, "c1 payer*, s1 hop, c2 payer*, s2 hop"},
	{"client went away", func() []*account.Record {
		return []*account.Record{
			call("c", 0, 50*ms, client(1), sizes(9, 100), func(r *account.Record) { r.Call.Partial = llm.PartialCut }),
			call("s", 1*ms, 300*ms, server(9), sizes(9, 900)),
		}
	}, "c payer*, s hop"},
	{"client went away before it saw an id", func() []*account.Record {
		return []*account.Record{
			call("c", 0, 50*ms, client(1), id(""), sizes(900, 0), noUsage, status(0), func(r *account.Record) { r.Call.ErrorType = "timeout" }),
			call("other", 10*ms, 350*ms, client(2), id("y"), sizes(900, 77)),
			call("s", 1*ms, 300*ms, server(9), sizes(900, 70)),
			call("sother", 11*ms, 349*ms, server(9), conn(2), id("y"), sizes(900, 77)),
		}
	}, "c payer*, other payer*, s hop, sother hop"},
	{"gateway keeps the id", func() []*account.Record {
		return []*account.Record{
			call("app", 0, 100*ms, client(1)),
			call("in", 1*ms, 99*ms, server(5), conn(1)),
			call("out", 5*ms, 95*ms, client(5), conn(2)),
			call("llm", 6*ms, 94*ms, server(9)),
		}
	}, "app origin, in hop, out payer*→1, llm hop"},
	{"gateway makes its own id and speaks to another vendor", func() []*account.Record {
		return []*account.Record{
			call("app", 0, 100*ms, client(1), id("gw"), model("auto")),
			call("in", 1*ms, 99*ms, server(5), conn(1), id("gw"), model("auto")),
			call("out", 5*ms, 95*ms, client(5), conn(2), id("msg_1"), path("/v1/messages"), model("claude"), sizes(7, 8)),
		}
	}, "app origin, in hop, out payer*→1"},
	{"gateway tries again", func() []*account.Record {
		return []*account.Record{
			call("app", 0, 200*ms, client(1), id("gw")),
			call("in", 1*ms, 199*ms, server(5), conn(1), id("gw")),
			call("try1", 5*ms, 50*ms, client(5), conn(2), id(""), sizes(3, 4), status(429)),
			call("try2", 60*ms, 190*ms, client(5), conn(2), id("up")),
		}
	}, "app origin, in hop, try1 payer*→1, try2 payer*→1"},
	{"gateway with two at once", func() []*account.Record {
		return []*account.Record{
			call("a", 0, 100*ms, client(1), id("gwa")),
			call("b", 1*ms, 110*ms, client(2), id("gwb")),
			call("ina", 2*ms, 99*ms, server(5), conn(1), id("gwa")),
			call("inb", 3*ms, 109*ms, server(5), conn(2), id("gwb")),
			call("outa", 10*ms, 95*ms, client(5), conn(3), id("ua")),
			call("outb", 11*ms, 105*ms, client(5), conn(4), id("ub")),
		}
	}, "a origin, b origin, ina hop, inb hop, outa payer*→1, outb payer*→2"},
	{"runner with a protocol of its own", func() []*account.Record {
		return []*account.Record{
			call("app", 0, 100*ms, client(1)),
			call("ollama", 1*ms, 99*ms, server(5), conn(1)),
			call("torunner", 5*ms, 95*ms, client(5), conn(2), id(""), path("/completion"), sizes(1, 2), noUsage),
			call("runner", 6*ms, 94*ms, server(6), id(""), path("/completion"), sizes(1, 2), noUsage),
		}
	}, "app payer*, ollama hop, torunner hop, runner hop"},
	{"proxy that ends TLS", func() []*account.Record {
		return []*account.Record{
			call("app", 0, 100*ms, client(1)),
			call("proxyin", 1*ms, 99*ms, server(5), conn(1)),
			call("proxyout", 2*ms, 98*ms, client(5), conn(2)),
			call("llm", 3*ms, 97*ms, server(9)),
		}
	}, "app origin, proxyin hop, proxyout payer*→1, llm hop"},
	{"a server's own embedding is no relay of its chat", func() []*account.Record {
		return []*account.Record{
			call("in", 0, 100*ms, server(5), conn(1), id("a"), model("llama")),
			call("embed", 5*ms, 20*ms, client(5), conn(2), id(""), path("/v1/embeddings"), model("e5"), sizes(1, 2),
				noUsage, func(r *account.Record) { r.Call.Operation = "embeddings" }),
		}
	}, "in * , embed * "},
}

func TestSettle(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			for range 20 { // records come in any order
				calls := sc.calls()
				order := slices.Clone(calls)
				rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
				n := 0
				s := account.New(account.Config{Wait: time.Second}, func(*account.Record) { n++ })
				for _, r := range order {
					s.Add(r)
				}
				s.Tick(recordtest.At(time.Second + 900*ms))
				if n != 0 {
					t.Fatalf("%d records went out early", n)
				}
				s.Tick(recordtest.At(time.Second + 1400*ms))
				if n != len(calls) || s.Stats().Pending != 0 {
					t.Fatalf("%d of %d records went out", n, len(calls))
				}
				var got []string
				for _, r := range calls {
					got = append(got, describe(r))
				}
				if g := strings.Join(got, ", "); strings.Join(strings.Fields(g), " ") != strings.Join(strings.Fields(sc.want), " ") {
					t.Fatalf("got  %s\nwant %s", g, sc.want)
				}
			}
		})
	}
}

func describe(r *account.Record) string {
	s := r.Call.SourceID + " " + string(r.Relay)
	if r.Counted {
		s += "*"
	}
	if r.Origin != nil {
		s += fmt.Sprintf("→%d", r.Origin.PID)
	}
	return strings.Replace(s, " *", " * ", 1)
}

// settled adds the calls in groups, with the clock moved between them.
func settled(cfg account.Config, groups ...func(s *account.Settler)) ([]*account.Record, *account.Settler) {
	var out []*account.Record
	s := account.New(cfg, func(r *account.Record) { out = append(out, r) })
	for _, g := range groups {
		g(s)
	}
	return out, s
}

func add(calls ...*account.Record) func(*account.Settler) {
	return func(s *account.Settler) {
		for _, r := range calls {
			s.Add(r)
		}
	}
}

func tick(d time.Duration) func(*account.Settler) {
	return func(s *account.Settler) { s.Tick(recordtest.At(time.Second + d)) }
}

func counted(out []*account.Record) (names []string) {
	for _, r := range out {
		if r.Counted {
			names = append(names, r.Call.SourceID)
		}
	}
	return names
}

func TestLateEndIsNotCountedAgain(t *testing.T) {
	out, s := settled(account.Config{Wait: time.Second},
		add(call("s", 1*ms, 99*ms, server(9))), tick(2*time.Second),
		add(call("c", 0, 100*ms, client(1))), tick(4*time.Second))
	if got := counted(out); !slices.Equal(got, []string{"s"}) || len(out) != 2 {
		t.Errorf("counted %v of %d", got, len(out))
	}
	if out[1].Relay != account.RelayOrigin || s.Stats().Late != 1 {
		t.Errorf("relay %q, stats %+v", out[1].Relay, s.Stats())
	}
	if out[0].Trace.TraceID == "" || out[1].Trace.TraceID == "" {
		t.Error("no trace")
	}
}

func TestLongServedCallIsNotCountedAfterItsParts(t *testing.T) {
	out, _ := settled(account.Config{Wait: time.Second},
		add(call("step1", 1*time.Second, 2*time.Second, client(5), conn(2), id("u1"))), tick(4*time.Second),
		add(call("step2", 5*time.Second, 6*time.Second, client(5), conn(2), id("u2"))), tick(8*time.Second),
		add(
			call("app", 0, 30*time.Second, client(1), id("x")),
			call("agent", 1*ms, 30*time.Second-ms, server(5), conn(1), id("x")),
			call("step3", 29*time.Second, 29*time.Second+500*ms, client(5), conn(2), id("u3")),
		), tick(40*time.Second))
	if got := counted(out); !slices.Equal(got, []string{"step1", "step2", "step3"}) {
		t.Errorf("counted %v", got)
	}
	if len(out) != 5 {
		t.Errorf("%d records", len(out))
	}
}

func TestChainWaitsForItsLastButNotForever(t *testing.T) {
	// Further ends keep coming: the first goes out after MaxWait.
	var out []*account.Record
	s := account.New(account.Config{Wait: time.Second, MaxWait: 3 * time.Second}, func(r *account.Record) { out = append(out, r) })
	s.Add(call("in", 0, 20*time.Second, server(5), conn(1), id("x")))
	for i := range 8 {
		at := time.Duration(i) * 500 * ms
		s.Add(call(fmt.Sprint("out", i), at+ms, at+400*ms, client(5), conn(2), id(fmt.Sprint(i))))
		s.Tick(recordtest.At(time.Second + 20*time.Second + at))
	}
	s.Tick(recordtest.At(time.Second + 24*time.Second))
	if len(out) != 9 || s.Stats().Pending != 0 {
		t.Errorf("%d records out, %+v", len(out), s.Stats())
	}
}

func TestPendingIsBounded(t *testing.T) {
	n := 0
	s := account.New(account.Config{Wait: time.Second, Pending: 100, Remembered: 50}, func(*account.Record) { n++ })
	for i := range 5000 {
		s.Add(call(fmt.Sprint(i), 0, 10*ms, client(uint32(i+1)), id(fmt.Sprint(i))))
	}
	if st := s.Stats(); st.Pending != 100 || st.Early != 4900 || n != 4900 {
		t.Errorf("%d out, %+v", n, st)
	}
	s.Flush()
	if n != 5000 || s.Stats().Pending != 0 {
		t.Errorf("%d out after flush", n)
	}
}

func TestNoWaitKeepsOrderAndJoinsNothing(t *testing.T) {
	out, _ := settled(account.Config{}, add(
		call("c", 0, 100*ms, client(1)), call("s", 1*ms, 99*ms, server(9)), call("c2", 0, 0, client(1))))
	if len(out) != 3 || out[0].Call.SourceID != "c" || out[2].Call.SourceID != "c2" {
		t.Fatalf("%v", out)
	}
	for _, r := range out {
		if !r.Counted || r.Relay != account.RelayNone || r.Trace.Source != "agent" {
			t.Errorf("%+v", r)
		}
	}
}

func TestOwnerIsAskedAgain(t *testing.T) {
	asked := 0
	cfg := account.Config{Wait: time.Second, OwnerWait: 10 * time.Second, Owner: func(r *account.Record) attribution.Owner {
		asked++
		o := r.Owner
		o.Complete, o.PodName = asked > 3, "web-1"
		return o
	}}
	pod := func(r *account.Record) { r.Owner = attribution.Owner{PodUID: "u"} }
	out, s := settled(cfg, add(call("c", 0, 100*ms, client(1), pod)), tick(1200*ms), tick(2500*ms), tick(3600*ms), tick(4700*ms))
	if len(out) != 1 || out[0].Owner.PodName != "web-1" || asked != 4 {
		t.Errorf("%d records after %d asked, %+v", len(out), asked, s.Stats())
	}
	asked = -100
	out, s = settled(cfg, add(call("c", 0, 100*ms, client(1), pod)), tick(2*time.Second), tick(8*time.Second), tick(12*time.Second))
	if len(out) != 1 || s.Stats().Unowned != 1 {
		t.Errorf("%d records, %+v", len(out), s.Stats())
	}
}

// The other end of a call, whose owner is known, does not hurry it out.
func TestOwnerIsWaitedForInAChain(t *testing.T) {
	known := false
	cfg := account.Config{Wait: time.Second, OwnerWait: time.Minute, Owner: func(r *account.Record) attribution.Owner {
		o := r.Owner
		if o.Complete = known; known {
			o.PodName = "web-1"
		}
		return o
	}}
	pod := func(r *account.Record) { r.Owner = attribution.Owner{PodUID: "u"} }
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		known = false
		ends := []*account.Record{call("c", 0, 100*ms, client(1), pod), call("s", 1*ms, 99*ms, server(9))}
		var steps []func(*account.Settler)
		steps = append(steps, add(ends[order[0]], ends[order[1]]))
		for at := time.Duration(0); at < 40*time.Second; at += 100 * ms {
			steps = append(steps, tick(at))
		}
		steps = append(steps, func(*account.Settler) { known = true }, tick(42*time.Second))
		out, s := settled(cfg, steps...)
		if len(out) != 2 || s.Stats().Unowned != 0 || s.Stats().Joined != 1 {
			t.Fatalf("%d records, %+v", len(out), s.Stats())
		}
		for _, r := range out {
			if r.Call.SourceID == "c" && r.Owner.PodName != "web-1" {
				t.Errorf("the client's end went out as %+v", r.Owner)
			}
		}
		known = false
		out, s = settled(cfg, add(call("c", 0, 100*ms, client(1), pod), call("s", 1*ms, 99*ms, server(9))), tick(2*time.Second), tick(30*time.Second), tick(61*time.Second), tick(63*time.Second))
		if len(out) != 2 || s.Stats().Unowned != 1 {
			t.Errorf("%d records, %+v: want both after OwnerWait, one without its pod", len(out), s.Stats())
		}
	}
}

// A server's end goes out alone only after ServerWait; with its client's, as soon as that
// one does.
func TestServerWait(t *testing.T) {
	cfg := account.Config{Wait: time.Second, ServerWait: 5 * time.Second}
	s := add(call("s", ms, 99*ms, server(9)))
	out, settler := settled(cfg, s, tick(1200*ms), tick(2400*ms), tick(4800*ms))
	if len(out) != 0 || settler.Stats().Pending != 1 {
		t.Errorf("%d records are out, %+v", len(out), settler.Stats())
	}
	settler.Tick(recordtest.At(7 * time.Second))
	if settler.Stats().Alone != 1 {
		t.Errorf("%+v", settler.Stats())
	}
	s = add(call("s", ms, 99*ms, server(9)))
	out, settler = settled(cfg, s, tick(1200*ms), tick(4*time.Second), add(call("c", 0, 100*ms, client(1))), tick(5200*ms))
	if got := counted(out); !slices.Equal(got, []string{"c"}) || len(out) != 2 || settler.Stats().Late != 0 {
		t.Errorf("counted %v of %d, %+v", got, len(out), settler.Stats())
	}
}

// opened says of the calls in l which have such a request.
func opened(l *[]*llm.Call) func(path string, bytes int64) iter.Seq[*llm.Call] {
	return func(path string, bytes int64) iter.Seq[*llm.Call] {
		return func(yield func(*llm.Call) bool) {
			for _, c := range *l {
				if c.Path == path && c.RequestBytes == bytes && !yield(c) {
					return
				}
			}
		}
	}
}

// A client may read its answer long after the server has written it: the server's end
// is held while such a call is open.
func TestServerWaitsForAnOpenClient(t *testing.T) {
	for name, c := range map[string]struct {
		open option        // makes another of the open call
		end  time.Duration // of the client's, 0: it does not
		want string
		at   time.Duration // when both are out
	}{
		"joined":              {func(*account.Record) {}, 8 * time.Second, "c payer*, s hop", 10 * time.Second},
		"for a minute":        {func(*account.Record) {}, 0, "s * ", 60 * time.Second},
		"of another path":     {path("/v1/messages"), 0, "s * ", 2 * time.Second},
		"of another size":     {sizes(1, 0), 0, "s * ", 2 * time.Second},
		"to another host":     {func(r *account.Record) { r.Call.ServerAddress = "other" }, 0, "s * ", 2 * time.Second},
		"with another answer": {id("other"), 0, "s * ", 2 * time.Second},
		"begun later":         {recordtest.Move(2 * ms), 0, "s * ", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := recordtest.New(client(1), id(""))
			c.open(r)
			open := []*llm.Call{r.Call}
			var out []*account.Record
			s := account.New(account.Config{Wait: time.Second, Open: opened(&open)}, func(r *account.Record) { out = append(out, r) })
			s.Add(call("s", ms, 99*ms, server(9)))
			for at := time.Duration(0); at < 2*time.Minute; at += 100 * ms {
				if at == c.end && c.end > 0 {
					open = nil // and on its way to the settler
				}
				s.Tick(recordtest.At(time.Second + at))
				if at == c.end && c.end > 0 {
					s.Add(call("c", 0, c.end, client(1)))
				}
				if len(out) > 0 && at < c.at-1500*ms || len(out) == 0 && at > c.at+1500*ms {
					t.Fatalf("%d records are out after %v, want them after %v", len(out), at, c.at)
				}
			}
			slices.SortFunc(out, func(a, b *account.Record) int { return strings.Compare(a.Call.SourceID, b.Call.SourceID) })
			var got []string
			for _, r := range out {
				got = append(got, describe(r))
			}
			if g := strings.Join(got, ", "); strings.TrimSpace(g) != strings.TrimSpace(c.want) {
				t.Errorf("got  %s\nwant %s", g, c.want)
			}
		})
	}
}

// All that was called meanwhile waits with it, for its caller.
func TestChainWaitsForAnOpenClient(t *testing.T) {
	open := []*llm.Call{recordtest.New(client(1), id("")).Call}
	var steps []func(*account.Settler)
	steps = append(steps, add(call("out", 5*ms, 95*ms, client(5), conn(2), id("u"), path("/v1/messages")), call("in", ms, 99*ms, server(5), conn(1))))
	at := time.Duration(0)
	until := func(end time.Duration) {
		for ; at < end; at += 100 * ms {
			steps = append(steps, tick(at))
		}
	}
	until(8 * time.Second)
	steps = append(steps, func(*account.Settler) { open = nil }, tick(at), add(call("app", 0, 8*time.Second, client(1))))
	until(8500 * ms)
	steps = append(steps, add(call("outermost", -ms, 8400*ms, server(1), conn(3), path("/v1/responses"), id("o"))))
	until(11 * time.Second)
	out, s := settled(account.Config{Wait: time.Second, Open: opened(&open)}, steps...)
	if got := counted(out); !slices.Equal(got, []string{"out"}) || len(out) != 4 || s.Stats().Late != 0 {
		t.Errorf("counted %v of %d, %+v", got, len(out), s.Stats())
	}
}

func TestTrace(t *testing.T) {
	const h = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	gateway := func(header string) []*account.Record {
		return []*account.Record{
			call("app", 0, 100*ms, client(1), traceparent(header)),
			call("in", 1*ms, 99*ms, server(5), conn(1), traceparent(header)),
			call("out", 5*ms, 95*ms, client(5), conn(2)),
			call("llm", 6*ms, 94*ms, server(9)),
		}
	}
	check := func(out []*account.Record, root, parent, source string) {
		t.Helper()
		for i, r := range out {
			if r.Trace.TraceID != root || r.Trace.Source != source || r.Trace.Parent != parent {
				t.Errorf("%s: %+v, want trace %s parent %s", r.Call.SourceID, r.Trace, root, parent)
			}
			for _, o := range out[:i] {
				if o.Trace.SpanID == r.Trace.SpanID {
					t.Errorf("%s and %s share a span", o.Call.SourceID, r.Call.SourceID)
				}
			}
			parent = r.Trace.SpanID
		}
	}
	cfg := account.Config{Wait: time.Second, Salt: "boot"}
	out, _ := settled(cfg, add(gateway(h)...), tick(2*time.Second))
	check(out, "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "header")

	first, _ := settled(cfg, add(gateway("")...), tick(2*time.Second))
	check(first, first[0].Trace.TraceID, "", "agent")
	again, _ := settled(cfg, add(gateway("")...), tick(2*time.Second))
	for i := range first {
		if first[i].Trace != again[i].Trace {
			t.Errorf("a repeat got %+v, was %+v", again[i].Trace, first[i].Trace)
		}
	}
	other, _ := settled(account.Config{Wait: time.Second, Salt: "other"}, add(gateway("")...), tick(2*time.Second))
	if other[0].Trace.TraceID == first[0].Trace.TraceID {
		t.Error("two nodes made the same trace id")
	}
}

func TestManyAtOnce(t *testing.T) {
	// 300 calls through a gateway, all overlapping, each with ids of its own at every
	// hop: as many are counted as were made, and each is booked to its caller.
	var all []*account.Record
	for i := range 300 {
		from := time.Duration(i) * ms
		gw, up := id(fmt.Sprint("gw", i)), id(fmt.Sprint("up", i))
		usage := func(r *account.Record) { r.Call.Usage.Set(llm.Output, float64(i)) }
		k := uint64(i + 1)
		all = append(all,
			call(fmt.Sprint("app", i), from, from+600*ms, client(uint32(100+i)), gw, usage),
			call(fmt.Sprint("in", i), from+ms/4, from+599*ms, server(5), conn(k), gw, usage),
			call(fmt.Sprint("out", i), from+ms/2, from+598*ms, client(5), conn(1000+k), up, usage, path("/v1/messages")),
			call(fmt.Sprint("llm", i), from+3*ms/4, from+597*ms, server(9), conn(k), up, usage, path("/v1/messages")))
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	start := time.Now()
	out, _ := settled(account.Config{Wait: time.Second}, add(all...), tick(3*time.Second))
	t.Logf("%d records settled in %v", len(out), time.Since(start))
	n := 0
	for _, r := range out {
		if !r.Counted {
			continue
		}
		n++
		var i int
		if _, err := fmt.Sscanf(r.Call.SourceID, "out%d", &i); err != nil || r.Origin == nil || r.Origin.PID != uint32(100+i) {
			t.Errorf("%s booked to %+v", r.Call.SourceID, r.Origin)
		}
	}
	if n != 300 || len(out) != 1200 {
		t.Errorf("%d counted of %d", n, len(out))
	}
}

func TestOutcome(t *testing.T) {
	for want, o := range map[account.Outcome]option{
		account.OutcomeOK:    func(r *account.Record) {},
		account.OutcomeError: status(503),
		account.OutcomeCut:   func(r *account.Record) { r.Call.ErrorType = "cut" },
	} {
		if got := recordtest.New(o).Outcome(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	for _, s := range []string{
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, h string) {
		trace, parent, ok := account.ParseTraceparent(h)
		if ok != (len(trace) == 32 && len(parent) == 16) {
			t.Errorf("%q: %q %q %v", h, trace, parent, ok)
		}
	})
}

func TestTraceparent(t *testing.T) {
	for h, want := range map[string]bool{
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":      true,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x":    false,
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what": true,
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01what":  false,
		"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":      false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01":      false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01":      false,
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01":      false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0":       false,
	} {
		if _, _, ok := account.ParseTraceparent(h); ok != want {
			t.Errorf("%q: %v, want %v", h, ok, want)
		}
	}
}

func TestManyAlikeAtOnce(t *testing.T) {
	// Two thousand calls with the same bodies and no ids, all open together.
	var all []*account.Record
	for i := range 2000 {
		from := time.Duration(i) * time.Microsecond
		all = append(all,
			call(fmt.Sprint("c", i), from, from+900*ms, client(uint32(100+i)), id("")),
			call(fmt.Sprint("s", i), from+100*time.Microsecond, from+899*ms, server(9), conn(uint64(i)), id("")))
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	start := time.Now()
	out, _ := settled(account.Config{Wait: time.Second}, add(all...), tick(3*time.Second))
	took := time.Since(start)
	t.Logf("%d records settled in %v", len(out), took)
	n := len(counted(out))
	if n != 2000 || len(out) != 4000 {
		t.Errorf("%d counted of %d", n, len(out))
	}
}
