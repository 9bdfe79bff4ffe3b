package pricing

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// benchQueries are calls as agents make them: cached, tiered, aliased, gone through
// a gateway, with a stated cost, unknown.
func benchQueries() []Query {
	usage := func(classes map[llm.Class]float64) *llm.Usage {
		u := new(llm.Usage)
		for c, n := range classes {
			u.Set(c, n)
		}
		return u
	}
	at := time.Date(2026, 9, 1, 3, 0, 0, 0, time.UTC)
	cached := usage(map[llm.Class]float64{llm.Input: 812, llm.CacheRead: 41200, llm.CacheWrite5m: 2048, llm.Output: 903, llm.Reasoning: 411})
	plain := usage(map[llm.Class]float64{llm.Input: 2210, llm.Output: 340})
	return []Query{
		{Provider: "anthropic", Model: "claude-sonnet-4-5-20250929", ServiceTier: "standard", Host: "api.anthropic.com", Path: "/v1/messages", At: at, Usage: cached},
		{Provider: "openai", Model: "gpt-5-2025-08-07", RequestModel: "gpt-5", ServiceTier: "default", Host: "api.openai.com", Path: "/v1/responses", At: at, Usage: cached},
		{Provider: "aws.bedrock", Model: "us.anthropic.claude-sonnet-4-5-20250929-v1:0", Host: "bedrock-runtime.us-east-1.amazonaws.com", At: at, Usage: cached},
		{Provider: "azure.ai.openai", Model: "gpt-4o-2024-08-06", RequestModel: "my-deployment", Host: "acme.openai.azure.com", At: at, Usage: plain},
		{Provider: "openrouter", Model: "anthropic/claude-4.5-haiku-20251001", Host: "openrouter.ai", At: at, Usage: plain, StatedCost: "0.0039101", StatedCostSource: "usage.cost"},
		{Provider: "deepseek", Model: "deepseek-v4-flash", Host: "api.deepseek.com", At: at, Usage: plain},
		{Provider: "openai", Model: "no-such-model", Host: "api.openai.com", At: at, Usage: plain},
	}
}

func BenchmarkPrice(b *testing.B) {
	book, err := Default()
	if err != nil {
		b.Fatal(err)
	}
	queries := benchQueries()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		book.Price(queries[i%len(queries)])
	}
}

func BenchmarkDefault(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		if _, err := Default(); err != nil {
			b.Fatal(err)
		}
	}
}

// bigBook writes a book of n models, as a fleet with many deployments has one.
func bigBook(n int) []byte {
	var b strings.Builder
	b.WriteString("format: tollwire-prices/1\ndate: 2026-01-01\nproviders:\n  - id: big\n    models:\n")
	for i := range n {
		fmt.Fprintf(&b, "      - id: model-%d\n        match: {exact: [model-%d, m.%d], prefix: [model-%d-]}\n        prices:\n          - {per_mtok: {input: 3.%d, cache_read: 0.3, cache_write: 3.75, output: 15}, above: [{input_tokens: 200000, per_mtok: {input: 6}}]}\n", i, i, i, i, i)
	}
	return []byte(b.String())
}

// cpuTime is what this process has used of the processors.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestFiveThousandModelsLoadInASecond(t *testing.T) {
	data := bigBook(5000)
	start := cpuTime(t) // other tests and programs share the machine
	b, err := Parse(Source{"big.yaml", data})
	took := cpuTime(t) - start
	if err != nil || b.Models() != 5000 {
		t.Fatal(b.Models(), err)
	}
	t.Logf("%d bytes in %v", len(data), took)
	if took > slowdown*time.Second {
		t.Errorf("took %v", took)
	}
	usage := new(llm.Usage)
	usage.Set(llm.Input, 1000)
	for i := range 100 { // the last models' rules are reached through all the others'
		p := b.Price(Query{Provider: "big", Model: fmt.Sprintf("model-%d-x%d", 4999-i, i), Usage: usage})
		if !p.Priced() {
			t.Fatal(p.Unpriced)
		}
	}
}
