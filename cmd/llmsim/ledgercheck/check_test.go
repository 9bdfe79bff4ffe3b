package ledgercheck

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/clients"
)

var at = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func entry() *sim.Entry {
	return &sim.Entry{
		ID: "chatcmpl-1", RequestID: "req_1", Provider: "openai", Operation: "chat", Asked: "gpt-4o", Served: "gpt-4o-2024-08-06",
		Stream: true, Status: 200, Finish: []string{"stop"}, Outcome: "completed", Stated: "exact", Started: at,
		Usage: map[string]float64{"input": 10, "cache_read": 0, "output": 4},
	}
}

const good = `{"time":"2026-11-22T03:00:00.001Z","tollwire.role":"client","gen_ai.provider.name":"openai","gen_ai.operation.name":"chat",` +
	`"gen_ai.request.model":"gpt-4o","gen_ai.response.model":"gpt-4o-2024-08-06","gen_ai.response.id":"chatcmpl-1",` +
	`"gen_ai.response.finish_reasons":["stop"],"gen_ai.request.stream":true,"http.response.status_code":200,` +
	`"tollwire.usage":{"input":10,"output":4},"tollwire.usage.completeness":"exact","tollwire.cost.usd":"0.000065"}`

// TestEveryLieIsFound changes one thing at a time in a record that matches.
func TestEveryLieIsFound(t *testing.T) {
	price := Options{Price: func(*sim.Entry) (string, bool) { return "0.000065", true }}
	check := func(e *sim.Entry, lines string) *Report {
		t.Helper()
		rs, err := Read(strings.NewReader(lines))
		if err != nil {
			t.Fatal(err)
		}
		return Check([]*sim.Entry{e}, rs, price)
	}
	if rep := check(entry(), good); !rep.OK() || rep.Matched != 1 {
		t.Fatalf("the truth was refused: %v", rep.Mismatches)
	}
	server := strings.Replace(good, `"client"`, `"server"`, 1)
	if rep := check(entry(), good+"\n"+server); !rep.OK() {
		t.Fatalf("the other end's record was held against the call: %v", rep.Mismatches)
	}
	for _, lie := range []struct{ old, new, word string }{
		{`"openai"`, `"azure.ai.openai"`, "provider"},
		{`"chat"`, `"embeddings"`, "operation"},
		{`"gpt-4o"`, `"gpt-4"`, "request model"},
		{`2024-08-06"`, `2024-05-13"`, "response model"},
		{`chatcmpl-1`, `chatcmpl-2`, "no record"},
		{`["stop"]`, `["length"]`, "finish reasons"},
		{`stream":true`, `stream":false`, "stream"},
		{`code":200`, `code":500`, "status"},
		{`"input":10`, `"input":11`, "input is 11"},
		{`"output":4`, `"output":3,"reasoning":1`, "reasoning is 1"},
		{`"exact"`, `"estimated"`, "called \"estimated\""},
		{`"0.000065"`, `"0.000066"`, "cost"},
		{`"tollwire.role"`, `"error.type":"cut","tollwire.role"`, "error.type"},
		{`"tollwire.role"`, `"tollwire.capture.partial":"lost","tollwire.role"`, "partial"},
	} {
		rep := check(entry(), strings.Replace(good, lie.old, lie.new, 1))
		if rep.OK() || !strings.Contains(strings.Join(rep.Mismatches, "\n"), lie.word) {
			t.Errorf("%s for %s: %v", lie.new, lie.old, rep.Mismatches)
		}
	}
	if rep := check(entry(), good+"\n"+good); rep.OK() {
		t.Error("a call seen twice was let pass")
	}
	if rep := check(entry(), ""); rep.OK() || rep.Matched != 0 {
		t.Error("a call not seen was let pass")
	}
}

func TestCallsWithoutID(t *testing.T) {
	e := entry()
	e.ID, e.Status, e.Outcome, e.Error, e.ErrorCode = "", 429, "error", "tokens", "rate_limit_exceeded"
	e.Stated, e.Usage, e.Finish = "missing", nil, nil
	r := &Record{Time: at.Add(time.Millisecond), Role: "client", Provider: "openai", Operation: "chat",
		RequestModel: "gpt-4o", Stream: true, Status: 429, Error: "rate_limit_exceeded", Completeness: "missing"}
	if rep := Check([]*sim.Entry{e}, []*Record{r}, Options{}); !rep.OK() {
		t.Error(rep.Mismatches)
	}
	late := *r
	late.Time = at.Add(time.Minute)
	if rep := Check([]*sim.Entry{e}, []*Record{&late}, Options{}); rep.OK() || len(rep.Mismatches) != 2 {
		t.Error(rep.Mismatches)
	}
}

// TestCutNeedsItsLabel: usage stated before a cut is estimated, and only its input
// is settled.
func TestCutNeedsItsLabel(t *testing.T) {
	e := entry()
	e.Outcome, e.Stated, e.Usage = "cut", "estimated", map[string]float64{"input": 10, "output": 1}
	var r Record
	if err := json.Unmarshal([]byte(good), &r); err != nil {
		t.Fatal(err)
	}
	if rep := Check([]*sim.Entry{e}, []*Record{&r}, Options{}); len(rep.Mismatches) != 2 {
		t.Errorf("a cut call passed for whole: %v", rep.Mismatches)
	}
	r.Completeness, r.Error, r.Usage["output"] = "estimated", "cut", 7
	if rep := Check([]*sim.Entry{e}, []*Record{&r}, Options{}); !rep.OK() {
		t.Error(rep.Mismatches)
	}
}

func TestTiming(t *testing.T) {
	ms := func(n float64) *float64 { n /= 1000; return &n }
	calls := []clients.CallResult{{ID: "a", OK: true, Begin: 1e9, Contents: []int64{1.1e9, 1.12e9, 1.15e9}, End: 1.2e9}}
	var tm Timing
	tm.Against(calls, []*Record{{Role: "client", ResponseID: "a", FirstContent: ms(100.5), GapMax: ms(40), Duration: ms(200)}})
	if a, _ := tm.FirstContent.Quantile(0.5); a.Round(time.Microsecond) != 500*time.Microsecond {
		t.Errorf("first content off by %v", a)
	}
	if tm.GapMax.Within(time.Millisecond, 0.02) || !tm.FirstContent.Within(time.Millisecond, 0.001) || tm.GapP50.N() != 0 {
		t.Errorf("%+v", tm)
	}
}
