package machine

import (
	"testing"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

type fixed struct{ b *pricing.Book }

func (f *fixed) Book() *pricing.Book { return f.b }

func book(t *testing.T, hourly string) *pricing.Book {
	t.Helper()
	b, err := pricing.Parse(pricing.Source{Name: "b", Data: []byte("format: tollwire-prices/1\ndate: 2026-01-01\nproviders:\n" +
		"  - {id: rack, endpoints: [vllm.svc], self_hosted: {fixed_per_hour: " + hourly + "}}\n" +
		"  - {id: laptop, endpoints: [localhost], self_hosted: true}\n")})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLedger(t *testing.T) {
	p := &fixed{book(t, "6")}
	l := New(p)
	ten := time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC)
	l.now = func() time.Time { return ten.Add(30 * time.Minute) }
	call := func(host string, at time.Time, took time.Duration) *account.Record {
		r := &account.Record{Time: at, Counted: true, Call: &llm.Call{ServerAddress: host}}
		r.Call.Times.Start, r.Call.Times.End = 1, 1+flow.Time(took)
		r.Call.Usage.Set(llm.Input, 900)
		r.Call.Usage.Set(llm.Output, 100)
		r.Price = p.b.Price(pricing.FromCall(r.Call, at))
		return r
	}
	l.Add(call("vllm.svc", ten, 10*time.Minute))
	l.Add(call("vllm.svc", ten.Add(5*time.Minute), 10*time.Minute))
	twin := call("vllm.svc", ten, 20*time.Minute)
	twin.Counted = false
	l.Add(twin)
	l.Add(call("localhost", ten, time.Minute))      // its cost is not stated
	l.Add(call("api.openai.com", ten, time.Minute)) // not self-hosted

	s := l.States()
	if len(s) != 1 || s[0].Provider != "rack" || len(s[0].Hours) != 1 {
		t.Fatalf("%+v", s)
	}
	h := s[0].Hours[0]
	if h.Served != (Served{Calls: 2, Input: 1800, Output: 200}) || h.Busy < 899 || h.Busy > 901 || h.Fixed.String() != "3" {
		t.Errorf("%+v", h)
	}
	if u := h.PerMtok.Utilisation; u < 0.499 || u > 0.501 {
		t.Errorf("utilisation %v", u)
	}
	p.b = book(t, "8") // a new rate: a new account
	l.Add(call("vllm.svc", ten.Add(20*time.Minute), time.Minute))
	if h := l.States()[0].Hours[0]; h.Served.Calls != 1 || h.Seconds != 600 {
		t.Errorf("%+v", h)
	}
}
