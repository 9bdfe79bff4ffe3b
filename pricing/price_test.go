package pricing

import (
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/llm"
)

func testBook(t testing.TB) *Book {
	t.Helper()
	b, err := Load("testdata/book.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// usage reads "input 10, cache_read 5".
func usage(t testing.TB, s string) *llm.Usage {
	t.Helper()
	u := new(llm.Usage)
	for part := range strings.SplitSeq(s, ",") {
		f := strings.Fields(part)
		if len(f) == 0 {
			continue
		}
		c, ok := llm.ClassOf(f[0])
		if !ok || len(f) != 2 {
			t.Fatalf("usage %q", s)
		}
		n, err := strconv.ParseFloat(f[1], 64)
		if err != nil || !u.Set(c, n) {
			t.Fatalf("usage %q: %v", s, err)
		}
	}
	return u
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	if s == "" {
		return time.Time{}
	}
	when, err := parseInstant(s)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// TestPrice goes through all that a price can depend on. Want is USD, or the reason
// why there is none.
func TestPrice(t *testing.T) {
	b := testBook(t)
	const k = "input 1000, output 1000"
	for _, c := range []struct {
		name, model, at, usage, want string
		q                            Query
	}{
		// Models.
		{"exact", "base", "", k, "0.018", Query{}},
		{"upper case", "BASE", "", k, "0.018", Query{}},
		{"alias", "my-deployment", "", k, "0.018", Query{}},
		{"alias in upper case", "other-name", "", k, "0.018", Query{}},
		{"suffix", "some-base", "", k, "0.018", Query{}},
		{"prefix: a fine-tuned model", "ft:base:org::id", "", k, "0.036", Query{}},
		{"contains", "a-fam-b", "", k, "0.003", Query{}},
		{"all of a group", "x-anything-y", "", k, "0.003", Query{}},
		{"half of a group", "x-anything-z", "", k, ReasonUnknownModel, Query{}},
		{"regular expression", "pat-12", "", k, "0.014", Query{}},
		{"regular expression, not", "pat-12b", "", k, ReasonUnknownModel, Query{}},
		{"dated slug", "base-20260101", "", k, "0.018", Query{}},
		{"dated slug with dashes", "base-2026-01-01", "", k, "0.018", Query{}},
		{"dated slug with an at", "base@20260101", "", k, "0.018", Query{}},
		{"dated slug, short", "base-0101", "", k, "0.018", Query{}},
		{"an ARN", "arn:aws:bedrock:us-east-1:123:inference-profile/base", "", k, "0.018", Query{}},
		{"a resource path", "publishers/acme/models/base", "", k, "0.018", Query{}},
		{"the served model goes first", "own", "", k, "0.018", Query{Provider: "cloud", RequestModel: "base"}},
		{"the asked model where the served is unknown", "what-it-is", "", k, "0.018", Query{RequestModel: "base"}},
		{"neither known", "what-it-is", "", k, ReasonUnknownModel, Query{RequestModel: "nor-this"}},
		{"no name at all", "", "", k, ReasonUnknownModel, Query{}},
		{"fallback", "base", "", k, "0.018", Query{Provider: "cloud"}},
		{"vendor before the slash", "acme/base", "", k, "0.018", Query{Provider: "gateway"}},
		{"vendor unknown", "other/base", "", k, ReasonUnknownModel, Query{Provider: "gateway"}},

		// Providers.
		{"provider by other name", "base", "", k, "0.018", Query{Provider: "acme.ai"}},
		{"provider in upper case", "base", "", k, "0.018", Query{Provider: "Acme"}},
		{"provider unknown", "base", "", k, ReasonUnknownProvider, Query{Provider: "nobody"}},
		{"provider by host", "base", "", k, "0.018", Query{Provider: "-", Host: "api.acme.ai"}},
		{"provider by host and path", "base", "", k, "0.018", Query{Provider: "-", Host: "eu.acme.cloud", Path: "/v1/chat"}},
		{"path of another", "base", "", k, ReasonUnknownProvider, Query{Provider: "-", Host: "eu.acme.cloud", Path: "/v10/chat"}},
		{"host unknown, provider known", "base", "", k, "0.018", Query{Host: "relay.example.com"}},
		{"a gateway of one's own", "base", "", k, ReasonUnlistedHost, Query{Host: "litellm.ai.svc"}},
		{"a gateway of one's own, configured", "acme/base", "", k, "0.018", Query{Host: "gateway.internal"}},
		{"subscription", "base", "", k, ReasonSubscription, Query{Host: "chat.acme.ai"}},
		{"self-hosted", "base", "", k, ReasonSelfHosted, Query{Host: "vllm.svc"}},

		// Classes and modalities.
		{"every class its own price", "modal", "", "input 1000000, input_audio 1000000, input_image 1000000, input_video 1000000, cache_read_audio 1000000, tool_input 1000000, output 1000000, reasoning 1000000, output_audio 1000000, output_image 1000000, citation 1000000", "91.9", Query{}},
		{"cache", "base", "", "input 1000, cache_read 10000, cache_write 1000, output 0", "0.00975", Query{}},
		{"five minutes follow the unstated write", "base", "", "cache_write_5m 1000", "0.00375", Query{}},
		{"an hour is derived", "base", "", "cache_write_1h 1000", "0.006", Query{}},
		{"an hour follows the write where nothing is derived", "whole", "", "cache_write_1h 1000", "0.003", Query{}},
		{"reasoning follows output", "base", "", "output 1, reasoning 1000", "0.015015", Query{}},
		{"audio follows input", "base", "", "input_audio 1000", "0.003", Query{}},
		{"citations follow nothing", "base", "", "output 10, citation 10", ReasonNoPriceForClass, Query{}},
		{"output of an embedding", "embed", "", k, ReasonNoPriceForClass, Query{}},
		{"no output of an embedding", "embed", "", "input 1000, output 0", "0.00002", Query{}},
		{"stated zeros", "base", "", "input 0, output 0", "0", Query{}},
		{"a free model", "free", "", k, "0", Query{}},
		{"usage missing", "base", "", "", ReasonUsageMissing, Query{}},
		{"an error without usage", "base", "", "", ReasonErrorAnswer, Query{Failed: true}},
		{"an error with usage is billed", "base", "", k, "0.018", Query{Failed: true}},
		{"a tool's own call", "", "", "", ReasonNoModelCall, Query{Operation: "execute_tool"}},
		{"more than money holds", "base", "", "output 9007199254740992", "135107988821.11488", Query{}},

		// Context length: strictly over, the whole request or the part beyond.
		{"at the threshold", "whole", "", "input 200000, output 1000", "0.615", Query{}},
		{"one over: the whole request", "whole", "", "input 200001, output 1000", "1.222506", Query{}},
		{"the cache counts", "whole", "", "input 1, cache_read 200000, output 1000", "0.142506", Query{}},
		{"output does not count", "whole", "", "input 1000, output 300000", "4.503", Query{}},
		{"the second step keeps what it does not change", "whole", "", "input 500001, output 1000", "6.022512", Query{}},
		{"marginal, below", "marginal", "", "input 1000, output 0", "0.001", Query{}},
		{"marginal, across", "marginal", "", "input 1500, output 0", "0.002", Query{}},
		{"marginal: the cached prefix lies first", "marginal", "", "input 600, cache_read 800", "0.0014", Query{}},
		{"marginal: output lies after the input", "marginal", "", "input 900, output 200", "0.0039", Query{}},

		// Service tiers, as served.
		{"standard by name", "tiered", "", k, "0.01", Query{ServiceTier: "default"}},
		{"standard by the provider's name", "tiered", "", k, "0.01", Query{ServiceTier: "Regular"}},
		{"a tier's own price", "tiered", "", k, "0.02", Query{ServiceTier: "priority"}},
		{"another name of it", "tiered", "", k, "0.02", Query{ServiceTier: "FAST"}},
		{"batch by factor", "tiered", "", k, "0.005", Query{ServiceTier: "batch"}},
		{"unknown tier", "tiered", "", k, ReasonUnknownTier, Query{ServiceTier: "platinum"}},
		{"a tier paid by the hour", "tiered", "", k, ReasonSubscription, Query{ServiceTier: "scale"}},
		{"batch and region multiply", "base", "", k, "0.0099", Query{ServiceTier: "batch", Region: "eu"}},

		// Regions.
		{"region by factor", "base", "", k, "0.0198", Query{Region: "EU"}},
		{"region by pattern", "base", "", k, "0.0198", Query{Region: "ap-south-1"}},
		{"region unknown: the list's", "base", "", k, "0.018", Query{Region: "us"}},
		{"a region's own price", "regional", "", k, "0.006", Query{Region: "us"}},

		// Instants.
		{"before the change", "dated", "2025-12-31T23:59:59Z", k, "0.02", Query{}},
		{"at the change", "dated", "2026-01-01T00:00:00Z", k, "0.01", Query{}},
		{"the last second of a price", "dated", "2026-06-30T15:59:59Z", k, "0.01", Query{}},
		{"the first second of the next", "dated", "2026-06-30T16:00:00Z", k, "0.004", Query{}},
		{"a price that crosses while the call runs: its start counts", "dated", "2026-06-30T15:59:59Z", k, "0.01", Query{End: at(t, "2026-06-30T16:00:30Z")}},
		{"no time: the book's date", "dated", "", k, "0.01", Query{}},
		{"a contract of the future", "tiered", "2026-12-31T23:59:59Z", k, "0.01", Query{}},
		{"a contract that has begun", "tiered", "2027-01-01", k, "0.002", Query{}},

		// Hours, days, calendars.
		{"night, before midnight there", "hourly", "2026-03-01T14:00:00Z", k, "0.001", Query{}},
		{"night, after midnight there", "hourly", "2026-03-01T21:59:00Z", k, "0.001", Query{}},
		{"morning there", "hourly", "2026-03-01T22:00:00Z", k, "0.002", Query{}},
		{"working hours", "weekly", "2026-07-02T13:00:00Z", k, "0.016", Query{}},
		{"after hours", "weekly", "2026-07-02T21:00:00Z", k, "0.008", Query{}},
		{"a holiday in working hours", "weekly", "2026-07-03T15:00:00Z", k, "0.004", Query{}},
		{"a weekend that is still Friday there", "weekly", "2026-07-11T03:00:00Z", k, "0.008", Query{}},
		{"a weekend", "weekly", "2026-07-11T05:00:00Z", k, "0.004", Query{}},
		{"summer time moves the hours", "weekly", "2026-01-08T13:30:00Z", k, "0.008", Query{}},
		{"billed at the end", "night", "2026-05-01T23:59:50Z", k, "0.002", Query{Provider: "late", End: at(t, "2026-05-02T00:00:10Z")}},
		{"billed at the end, which is unknown", "night", "2026-05-01T23:59:50Z", k, "0.004", Query{Provider: "late"}},

		// Volume of the month, as the config states it.
		{"a month over the volume", "volume", "2026-06-30T23:59:59Z", k, "0.016", Query{}},
		{"the next month begins anew", "volume", "2026-07-01T00:00:00Z", k, "0.02", Query{}},
		{"a month of which nothing is stated", "volume", "2026-08-01", k, "0.02", Query{}},

		// One call across a context step, an instant and a month.
		{"below the step, before the instant, in the full month", "crossing", "2026-06-30T23:59:59Z", "input 1000, output 1000", "0.016", Query{}},
		{"over the step, it began before the others", "crossing", "2026-06-30T23:59:59Z", "input 1001, output 1000", "0.024016", Query{End: at(t, "2026-07-01T00:00:30Z")}},
		{"over the step, it began after them", "crossing", "2026-07-01T00:00:00Z", "input 1001, output 1000", "0.01501", Query{}},
		{"over all three: billed at its end", "crossing", "2026-06-30T23:59:59Z", "input 1001, output 1000", "0.01501", Query{Provider: "late", End: at(t, "2026-07-01T00:00:30Z")}},
		{"over the step only: billed at its end", "crossing", "2026-06-30T23:59:50Z", "input 1001, output 1000", "0.024016", Query{Provider: "late", End: at(t, "2026-06-30T23:59:59Z")}},

		// Fees and units.
		{"a request's fee by search context", "search", "", "input 1000, output 0", "0.013", Query{Hints: llm.CostHints{SearchContextSize: "high"}}},
		{"a search context without a price", "search", "", "input 1000", "0.001", Query{}},
		{"searches", "search", "", "input 1000, searches 3", "0.024", Query{Hints: llm.CostHints{SearchContextSize: "medium"}}},
		{"searches by context size", "base", "", "input 1000, searches 2", "0.023", Query{Hints: llm.CostHints{SearchContextSize: "high"}}},
		{"searches by context size, unstated", "base", "", "input 1000, searches 2", "0.019", Query{}},
		{"searches without a price", "whole", "", "input 1000, searches 2", ReasonNoPriceForClass, Query{}},
		{"searches stated as tool requests", "base", "", "input 1000", "0.011", Query{Hints: llm.CostHints{ToolRequests: map[string]int{"web_search": 1}}}},
		{"searches stated twice count once", "base", "", "input 1000, searches 1", "0.011", Query{Hints: llm.CostHints{ToolRequests: map[string]int{"web_search": 1}}}},
		{"a search whose fee stands among the tools'", "tools", "", "input 1000, searches 1", "0.011", Query{Hints: llm.CostHints{ToolRequests: map[string]int{"web_search": 1}}}},
		{"the same, stated as a tool request alone", "tools", "", "input 1000", "0.031", Query{Hints: llm.CostHints{ToolRequests: map[string]int{"web_search": 1}}}},
		{"a tool's fee", "base", "", "input 1000", "0.008", Query{Hints: llm.CostHints{ToolRequests: map[string]int{"file_search": 2}}}},
		{"seconds by the minute", "speech", "", "seconds 90", "0.009", Query{}},
		{"a part of a second", "speech", "", "seconds 0.5", "0.00005", Query{}},
		{"seconds by the hour", "gpu", "", "seconds 10", "0.01", Query{}},
		{"characters", "voice", "", "characters 2000", "0.03", Query{}},
		{"an image by size and quality", "painter", "", "images 2", "0.16", Query{Hints: llm.CostHints{ImageSize: "1024x1024", ImageQuality: "HD"}}},
		{"an image by size", "painter", "", "images 1", "0.04", Query{Hints: llm.CostHints{ImageSize: "1024x1024", ImageQuality: "new"}}},
		{"an image by quality", "painter", "", "images 1", "0.01", Query{Hints: llm.CostHints{ImageSize: "2x2", ImageQuality: "draft"}}},
		{"an image of no known size", "painter", "", "images 1", ReasonNoPriceForClass, Query{Hints: llm.CostHints{ImageSize: "2x2"}}},
		{"pages and search units", "reader", "", "pages 3, search_units 2", "0.007", Query{}},
		{"a unit that only informs", "base", "", "input 1000, images 1", "0.003", Query{}},
		{"only a unit without a price", "base", "", "images 1", ReasonNoPriceForClass, Query{}},

		// Currencies.
		{"yuan", "yuan", "", k, "0.0084", Query{}},
		{"euro", "euro", "", k, "0.002025", Query{}},

		// Contracts.
		{"a discount", "whole", "", k, "0.0153", Query{Region: "mars"}},
		{"free by contract", "base", "", k, "0", Query{Region: "venus"}},
		{"a server of one's own by contract", "llama", "", k, "0.0003", Query{Provider: "-", Host: "10.1.2.3"}},
	} {
		q := c.q
		switch q.Provider {
		case "":
			q.Provider = "acme"
		case "-":
			q.Provider = ""
		}
		q.Model, q.At, q.Usage = c.model, at(t, c.at), usage(t, c.usage)
		p := b.Price(q)
		got := p.Unpriced
		if p.Priced() {
			got = p.USD.String()
		}
		if got != c.want {
			t.Errorf("%s: %s (%s), want %s", c.name, got, p.Source, c.want)
		}
		if p.Priced() == (p.Source == "") || p.Version != b.Version() {
			t.Errorf("%s: source %q, version %q", c.name, p.Source, p.Version)
		}
	}
}

func TestPrecedence(t *testing.T) {
	b := testBook(t)
	base := Query{Provider: "acme", Model: "base", Usage: usage(t, "input 1000, output 1000")} // 0.018
	for _, c := range []struct {
		name                string
		change              func(*Query)
		usd, source, reason string
		disagrees           bool
	}{
		{"list", func(*Query) {}, "0.018", SourceList, "", false},
		{"stated", func(q *Query) { q.StatedCost, q.StatedCostSource = "0.0181", "usage.cost" }, "0.0181", SourceProvider, "", false},
		{"stated, apart", func(q *Query) { q.StatedCost, q.StatedCostSource = "0.02", "usage.cost" }, "0.02", SourceProvider, "", true},
		{"exactly 1 % apart is not over it", func(q *Query) { q.StatedCost, q.StatedCostSource = "0.01782", "usage.cost" }, "0.01782", SourceProvider, "", false},
		{"ticks", func(q *Query) { q.StatedCost, q.StatedCostSource = "180000000", "usage.ticks" }, "0.018", SourceProvider, "", false},
		{"another unit", func(q *Query) { q.StatedCost, q.StatedCostSource = "0.45", "usage.credits" }, "0.018", SourceProvider, "", false},
		{"floating point noise", func(q *Query) { q.StatedCost, q.StatedCostSource = "1.8000000000000002e-2", "usage.cost" }, "0.018000000000000002", SourceProvider, "", false},
		{"more digits than money", func(q *Query) { q.StatedCost, q.StatedCostSource = "1.8000000000000002345e-6", "usage.cost" }, "0.000001800000000000000", SourceProvider, "", true},
		{"unit unknown", func(q *Query) { q.StatedCost, q.StatedCostSource = "18", "usage.coins" }, "0.018", SourceList, "", false},
		{"no number", func(q *Query) { q.StatedCost, q.StatedCostSource = "free", "usage.cost" }, "0.018", SourceList, "", false},
		{"negative", func(q *Query) { q.StatedCost, q.StatedCostSource = "-1", "usage.cost" }, "0.018", SourceList, "", false},
		{"stated zero", func(q *Query) { q.StatedCost, q.StatedCostSource = "0", "usage.cost" }, "0", SourceProvider, "", true},
		{"a header that any proxy sends", func(q *Query) {
			q.Provider, q.StatedCost, q.StatedCostSource = "nobody", "0.5", "x-litellm-response-cost"
		}, "0.5", SourceProvider, "", false},
		{"stated where the list has nothing", func(q *Query) { q.Model, q.StatedCost, q.StatedCostSource = "new", "0.5", "usage.cost" }, "0.5", SourceProvider, "", false},
		{"stated where usage is missing", func(q *Query) { q.Usage, q.StatedCost, q.StatedCostSource = nil, "0.5", "usage.cost" }, "0.5", SourceProvider, "", false},
		{"stated within a subscription", func(q *Query) { q.Provider, q.StatedCost, q.StatedCostSource = "plan", "0.5", "usage.cost" }, "0.5", SourceProvider, "", false},
		{"a contract before what is stated", func(q *Query) {
			q.Model, q.Region, q.StatedCost, q.StatedCostSource = "whole", "mars", "0.5", "usage.cost"
		}, "0.0153", SourceOverride, "", false},
		{"free by contract", func(q *Query) { q.Region, q.StatedCost, q.StatedCostSource = "venus", "0.5", "usage.cost" }, "0", SourceOverride, "", false},
		{"a discount on no price leaves it to the next", func(q *Query) {
			q.Model, q.Region, q.Usage, q.StatedCost, q.StatedCostSource = "whole", "mars", nil, "0.5", "usage.cost"
		}, "0.5", SourceProvider, "", false},
	} {
		q := base
		c.change(&q)
		p := b.Price(q)
		want := Money{}
		if c.usd != "" {
			want = mustMoney(t, c.usd)
		}
		if p.USD != want || p.Source != c.source || p.Unpriced != c.reason || p.Disagrees != c.disagrees {
			t.Errorf("%s: %s by %s (%s), disagrees %v", c.name, p.USD, p.Source, p.Unpriced, p.Disagrees)
		}
	}
	q := base
	q.Region = "venus"
	if p := b.Price(q); p.Free != FreeByContract || p.List != mustMoney(t, "0.018") || !p.HasList {
		t.Errorf("free by contract keeps what the list says: %+v", p)
	}
}

func TestSavings(t *testing.T) {
	b := testBook(t)
	for _, c := range []struct{ model, usage, want string }{
		{"base", "input 1000, output 10", ""},
		{"base", "input 1000, cache_read 1000000, output 10", "2.7"},
		{"base", "cache_write 1000000", "-0.75"},
		{"base", "cache_write_1h 1000000", "-3"},
		{"base", "cache_read 1000000, cache_write_5m 1000000", "1.95"},
		{"whole", "cache_read 200001", "1.0800054"},
		{"modal", "cache_read_audio 1000000", "9.6"},
		{"marginal", "cache_read 2000", "0.0015"},
	} {
		p := b.Price(Query{Provider: "acme", Model: c.model, Usage: usage(t, c.usage)})
		if p.HasSavings != (c.want != "") || p.HasSavings && p.Savings != mustMoney(t, c.want) {
			t.Errorf("%s, %s: saved %s, want %s", c.model, c.usage, p.Savings, c.want)
		}
	}
}

func TestAmountsBeyondMoney(t *testing.T) {
	b, err := Parse(Source{"x.yaml", []byte("format: tollwire-prices/1\ndate: 2026-01-01\nproviders:\n  - id: a\n    models: [{id: m, prices: {each: {input: 1000}}}]\n")})
	if err != nil {
		t.Fatal(err)
	}
	p := b.Price(Query{Provider: "a", Model: "m", Usage: usage(t, "input 9007199254740992")})
	if p.Unpriced != ReasonOutOfRange {
		t.Errorf("%+v", p)
	}
}

func TestFromCall(t *testing.T) {
	c := &llm.Call{Provider: "acme", ResponseModel: "base", ServerAddress: "api.acme.ai", Status: 500}
	c.Times.Start, c.Times.End = 1, 1+2e9
	when := at(t, "2026-01-01")
	q := FromCall(c, when)
	if !q.Failed || q.End != when.Add(2*time.Second) || q.Usage != &c.Usage {
		t.Errorf("%+v", q)
	}
	if q := FromCall(&llm.Call{}, time.Time{}); !q.End.IsZero() || q.Failed {
		t.Errorf("%+v", q)
	}
}

// FuzzBook parses anything; what is taken for a book prices without a panic and
// never below zero.
func FuzzBook(f *testing.F) {
	for _, name := range []string{"testdata/book.yaml", "book/overlay.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("format: tollwire-prices/1\ndate: 2026-01-01\nproviders: [{id: a, models: [{id: m, prices: {each: {input: 1e-21}}}]}]")
	f.Add(`{"format": "tollwire-prices/1", "date": "2026-01-01", "providers": []}`)
	f.Add("a: &x [*x]\n<<: *x")
	f.Add(strings.Repeat("[", 500))
	f.Fuzz(func(t *testing.T, s string) {
		b, err := Parse(Source{"fuzz.yaml", []byte(s)})
		if err != nil {
			if len(err.Error()) > 1<<16 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		b.Lint()
		Diff(b, b)
		u := new(llm.Usage)
		for c := range llm.NumClasses {
			u.Set(c, float64(c)*1000)
		}
		for _, p := range b.providers {
			for _, m := range p.models {
				price := b.Price(Query{Provider: p.id, Model: m.id, Usage: u})
				if price.USD.Sign() < 0 || math.IsNaN(price.USD.Float64()) {
					t.Fatalf("%s/%s costs %s", p.id, m.id, price.USD)
				}
			}
		}
	})
}
