package decoder

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

func TestDeferred(t *testing.T) {
	asked := func(id string) *llm.Call {
		return &llm.Call{Method: "POST", ResponseID: id, RequestModel: "m", Deferred: llm.DeferredAsked}
	}
	done := func(id string) *llm.Call {
		c := &llm.Call{Method: "GET", ResponseID: id, FinishReasons: []string{"completed"}, Completeness: llm.Exact, Deferred: llm.DeferredDone}
		c.Usage.Set(llm.Output, 5)
		c.Times.End = 9
		return c
	}
	waits := func(id string) *llm.Call {
		return &llm.Call{Method: "GET", ResponseID: id, Deferred: llm.DeferredWaiting}
	}
	for _, x := range []struct {
		name  string
		calls []*llm.Call
		want  []string // method, model, id, output
	}{
		{"asked and fetched", []*llm.Call{asked("a"), waits("a"), waits("a"), done("a"), done("a"), waits("a")}, []string{"POST m a 5"}},
		{"fetched by another than asked", []*llm.Call{done("a"), done("a")}, []string{"GET  a 5"}},
		{"answered at once and fetched again", []*llm.Call{{Method: "POST", ResponseID: "a", Deferred: llm.DeferredDone}, done("a")}, []string{"POST  a 0"}},
		{"never fetched", []*llm.Call{asked("a"), asked("b"), waits("b")}, []string{"POST m a 0", "POST m b 0"}},
		{"no id", []*llm.Call{asked(""), done("")}, []string{"POST m  0", "GET   5"}},
		{"both ends", []*llm.Call{asked("a"), {Role: llm.RoleServer, Method: "POST", ResponseID: "a", Deferred: llm.DeferredAsked}, done("a"),
			{Role: llm.RoleServer, Method: "GET", ResponseID: "a", Deferred: llm.DeferredDone}}, []string{"POST m a 5", "POST  a 0"}},
		{"ordinary calls", []*llm.Call{{Method: "POST", ResponseID: "a"}, {Method: "POST", ResponseID: "a"}}, []string{"POST  a 0", "POST  a 0"}},
	} {
		d := NewDeferred()
		var got []string
		emit := func(c *llm.Call) {
			got = append(got, fmt.Sprintf("%s %s %s %v", c.Method, c.RequestModel, c.ResponseID, c.Usage.Get(llm.Output)))
		}
		for i, c := range x.calls {
			d.add(c, flow.Time(i), emit)
		}
		d.expire(flow.Time(len(x.calls)), emit)
		if !slices.Equal(got, x.want) || len(d.waiting) > 0 {
			t.Errorf("%s: %q, want %q; left %d", x.name, got, x.want, len(d.waiting))
		}
	}
}

// TestDeferredIsBounded fills a Deferred: what has no room goes out without its answer.
func TestDeferredIsBounded(t *testing.T) {
	d := NewDeferred()
	out := 0
	emit := func(*llm.Call) { out++ }
	const n = 3 * maxFetched
	for i := range maxFetched { // one that is never fetched, and many that are at once
		d.add(&llm.Call{ResponseID: fmt.Sprint("a", i), Deferred: llm.DeferredAsked}, 0, emit)
		if i > 0 {
			d.add(&llm.Call{ResponseID: fmt.Sprint("a", i), Deferred: llm.DeferredDone}, 0, emit)
		}
		if len(d.oldest) > 2*maxDeferred+1 {
			t.Fatalf("%d in order", len(d.oldest))
		}
	}
	d.expire(0, emit)
	out -= maxFetched
	for i := range n {
		d.add(&llm.Call{ResponseID: fmt.Sprint(i), Deferred: llm.DeferredAsked}, flow.Time(i), emit)
		if i%2 == 0 {
			d.add(&llm.Call{ResponseID: fmt.Sprint(i), Deferred: llm.DeferredDone}, flow.Time(i), emit)
		}
		if len(d.waiting) > maxDeferred || len(d.fetched) > maxFetched || len(d.oldest) > 3*maxDeferred+1 {
			t.Fatalf("%d wait, %d are known, %d in order", len(d.waiting), len(d.fetched), len(d.oldest))
		}
	}
	d.expire(n, emit)
	if out != n {
		t.Errorf("%d of %d calls went out", out, n)
	}
}
