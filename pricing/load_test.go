package pricing

import (
	"strings"
	"testing"
)

// book puts lines under a right head.
func book(lines string) Source {
	return Source{"b.yaml", []byte("format: tollwire-prices/1\ndate: 2026-01-01\n" + lines)}
}

// TestBadBooks: every fault is refused with its line and a reason.
func TestBadBooks(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "b.yaml: empty"},
		{"only a comment", "# nothing", "b.yaml: empty"},
		{"no YAML", "format: [", "b.yaml:1:1: no valid YAML"},
		{"tabs", "format: tollwire-prices/1\n\tdate: x", "b.yaml:2:1: no valid YAML"},
		{"two documents", "format: tollwire-prices/1\n---\nformat: x", "b.yaml:2:1: more than one YAML document"},
		{"anchors", "format: &a tollwire-prices/1\ndate: *a", "b.yaml:1:9: anchors"},
		{"merge", "<<: {format: x}", "merge keys"},
		{"no format", "date: 2026-01-01", "b.yaml:1:1: the key format is missing"},
		{"another format", "format: tollwire-prices/9\ndate: 2026-01-01", `b.yaml:1:9: format "tollwire-prices/9"`},
		{"a list", "- a", "b.yaml:1:1: want a mapping, found a list"},
		{"unknown key", "format: tollwire-prices/1\nprovider: []", `b.yaml:2:1: unknown key "provider": known here are apis, calendars,`},
		{"key twice", "format: tollwire-prices/1\ndate: 2026-01-01\ndate: 2026-01-02", `b.yaml:3:1: key "date" stands twice`},
		{"date", "format: tollwire-prices/1\ndate: soon", "b.yaml:2:7: \"soon\": want a date"},
		{"no date", "format: tollwire-prices/1\n", "the book has no date"},
		{"unknown class", withRates("{input: 1, outptu: 2}"), `b.yaml:5:52: unknown class "outptu"`},
		{"no number", withRates("{input: cheap}"), `"cheap": not a decimal number`},
		{"negative", withRates("{input: -1}"), "-1 is negative"},
		{"too fine", withRates("{input: 0.0000000000000001}"), "has more than 15 decimals"},
		{"too large", withRates("{input: 1e40}"), "too large"},
		{"null", withRates("{input: }"), "want a number, found nothing"},
		{"a list for a price", withRates("{input: [1]}"), "want a number, found a list"},
		{"size of tokens", withRates("{input: {low: 1}}"), "only images, searches and requests have a price by size"},
		{"model without prices", inProvider("models: [{id: m}]"), "b.yaml:4:22: model m has no prices"},
		{"model twice", inProvider("models: [{id: m, prices: {}}, {id: M, prices: {}}]"), "model M stands twice"},
		{"model without id", inProvider("models: [{prices: {}}]"), "a model without an id"},
		{"regex", inProvider("models: [{id: m, match: {regex: '('}, prices: {}}]"), "no regular expression"},
		{"match nothing", inProvider("models: [{id: m, match: {}, prices: {}}]"), "matches nothing"},
		{"hours", inProvider("models: [{id: m, prices: {hours: '25:00-26:00'}}]"), "want hours as 00:30-16:30"},
		{"days", inProvider("models: [{id: m, prices: {days: someday}}]"), `unknown day "someday"`},
		{"zone", inProvider("models: [{id: m, prices: {hours: '01:00-02:00', zone: Mars/Base}}]"), `unknown time zone "Mars/Base"`},
		{"zone alone", inProvider("models: [{id: m, prices: {zone: UTC}}]"), "a zone without hours or days"},
		{"calendar", inProvider("models: [{id: m, prices: {calendar: none}}]"), `no calendar "none" in the book`},
		{"instant", inProvider("models: [{id: m, prices: {from: 2026-13-01}}]"), "want a date (2026-01-31) or a time"},
		{"steps", inProvider("models: [{id: m, prices: {above: [{input_tokens: 5}, {input_tokens: 5}]}}]"), "grow from step to step"},
		{"steps of two kinds", inProvider("models: [{id: m, prices: {above: [{input_tokens: 5, marginal: true}, {input_tokens: 6}]}}]"), "all marginal or none"},
		{"minutes of tokens", inProvider("models: [{id: m, prices: {per_minute: {input: 1}}}]"), "only seconds have a price by time"},
		{"price twice", inProvider("models: [{id: m, prices: {per_mtok: {input: 1}, each: {input: 1}}}]"), "input has a price already"},
		{"currency", inProvider("models: [{id: m, prices: {currency: XXX}}]"), "no rate for the currency XXX"},
		{"factor", inProvider("adjust: [{tier: batch, times: 0}]"), "want a factor above 0"},
		{"no factor", inProvider("adjust: [{tier: batch}]"), "an adjustment needs times"},
		{"fallback", inProvider("fallback: [nobody]"), `falls back on "nobody"`},
		{"vendor", inProvider("vendors: {x: nobody}"), `vendor "nobody" is no provider`},
		{"name taken", "providers: [{id: a}, {id: b, names: [a]}]", `the name "a" is a's already`},
		{"override of nobody", "overrides: [{provider: x, free: true}]", `an override for "x"`},
		{"override of nothing", "overrides: [{provider: x}]", "one of prices, times, free, subscription"},
		{"month", inProvider("month_tokens: {July: 5}"), "want a month as 2026-01"},
		{"unit of nothing", "stated: {x: 0}", "a unit worth nothing"},
		{"deep", inProvider("models: " + strings.Repeat("[", 40) + strings.Repeat("]", 40)), "nested too deep"},
	} {
		s := Source{"b.yaml", []byte(c.text)}
		if !strings.Contains(c.text, "format") && c.text != "" && !strings.HasPrefix(c.text, "#") &&
			!strings.HasPrefix(c.text, "-") && !strings.HasPrefix(c.text, "<") && !strings.HasPrefix(c.text, "date") {
			s = book(c.text)
		}
		_, err := Parse(s)
		if err == nil {
			t.Errorf("%s: taken for a book", c.name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", c.name, err, c.want)
		}
	}
}

func inProvider(line string) string { return "providers:\n  - {id: a, " + line + "}" }

func withRates(rates string) string {
	return "providers:\n  - id: a\n    models: [{id: m, prices: {per_mtok: " + rates + "}}]"
}

func TestEveryFaultIsReported(t *testing.T) {
	_, err := Parse(book("provider: 1\nproviders:\n  - id: a\n    models:\n      - {id: m, prices: {per_mtok: {input: x}}}\n      - {id: n, prices: {per_mtok: {output: y}}}\n"))
	if err == nil {
		t.Fatal("taken for a book")
	}
	for _, want := range []string{"b.yaml:3:1", "b.yaml:7:", "b.yaml:8:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %s", err, want)
		}
	}
	many := strings.Repeat("x", 1)
	var b strings.Builder
	for i := range 100 {
		b.WriteString(strings.Repeat(many, i+1) + ": 1\n")
	}
	if _, err := Parse(book(b.String())); err == nil || strings.Count(err.Error(), "\n") > maxErrors+1 || !strings.Contains(err.Error(), "and 80 more") {
		t.Errorf("a bound on faults: %v", err)
	}
}

func TestJSONIsABook(t *testing.T) {
	b, err := Parse(Source{"b.json", []byte(`{"format": "tollwire-prices/1", "date": "2026-01-01", "providers": [{"id": "a", "models": [{"id": "m", "prices": {"per_mtok": {"input": 1}}}]}]}`)})
	if err != nil || b.Models() != 1 {
		t.Fatal(b, err)
	}
}

func TestOverlay(t *testing.T) {
	base := book(`
providers:
  - id: a
    endpoints: [api.a]
    models:
      - {id: m, match: {prefix: [m]}, prices: {per_mtok: {input: 1, output: 1}}}
      - {id: n, prices: {per_mtok: {input: 2, output: 2}}}
overrides: [{provider: a, models: {exact: [n]}, times: 0.5}]
`)
	over := Source{"o.yaml", []byte(`
format: tollwire-prices/1
date: 2026-02-02
providers:
  - id: a
    names: [aa]
    models:
      - {id: M, prices: {per_mtok: {input: 10, output: 10}}}
      - {id: m-special, prices: {per_mtok: {input: 20, output: 20}}}
      - {id: n, extra_prices: [{tier: fast, per_mtok: {input: 4, output: 4}}]}
  - id: b
    fallback: [a]
overrides: [{provider: a, models: {exact: [n]}, tier: fast, times: 0.25}]
`)}
	b, err := Parse(base, over)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.Version(), "2026-02-02+") || b.Date().Day() != 2 {
		t.Error(b.Version(), b.Date())
	}
	for _, c := range []struct{ provider, model, tier, want string }{
		{"a", "m", "", "10"},         // prices replaced
		{"aa", "m-other", "", "10"},  // the match kept
		{"a", "m-special", "", "20"}, // a new model goes before the base's rules
		{"a", "n", "", "1"},          // the base's contract still holds
		{"a", "n", "fast", "1"},      // a tier added, and the overlay's contract first
		{"b", "m", "", "10"},         // a new provider
	} {
		p := b.Price(Query{Provider: c.provider, Model: c.model, ServiceTier: c.tier, Usage: usage(t, "input 1000000")})
		if p.USD.String() != c.want {
			t.Errorf("%s/%s %s: %s %s, want %s", c.provider, c.model, c.tier, p.USD, p.Unpriced, c.want)
		}
	}
	again, _ := Parse(base, over)
	other, _ := Parse(over, base)
	if again.Version() != b.Version() || other != nil && other.Version() == b.Version() {
		t.Error("a version names content and order")
	}
}

func TestLint(t *testing.T) {
	b, err := Parse(book(`
providers:
  - id: a
    adjust: [{models: {exact: [gone]}, times: 2}]
    models:
      - {id: ok-1, prices: {per_mtok: {input: 1, cache_read: 0.1, output: 4}}}
      - {id: ok-2, prices: {per_mtok: {input: 2, cache_read: 0.1, output: 4}}}
      - {id: ok-3, prices: {per_mtok: {input: 1, cache_read: 0.1, output: 4}}}
      - {id: ok-4, prices: {per_mtok: {input: 150, output: 400}}}
      - {id: ok-5, prices: {per_mtok: {input: 0.001, output: 0.002}}}
      - {id: b, prices: {per_mtok: {input: 1, cache_read: 2, output: 1}}}
      - {id: c, prices: {per_mtok: {input: 1, cache_read: 0.5, cache_write: 0.1, cache_write_1h: 0.05, output: 1}}}
      - {id: d, prices: {per_mtok: {input: 1, cache_write: 40, output: 90}}}
      - {id: e, prices: [{until: 2026-01-01, from: 2026-02-01, per_mtok: {input: 1}}, {per_mtok: {input: 1}}]}
      - {id: f, prices: {per_mtok: {input: 0, output: 0}}}
      - {id: g-free, prices: {per_mtok: {input: 0, output: 0}}}
      - {id: h, match: {exact: [h, i]}, prices: {per_mtok: {input: 1}}}
      - {id: i, prices: {per_mtok: {input: 1}, above: [{input_tokens: 5, per_mtok: {input: 0.5}}]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, w := range b.Lint() {
		got.WriteString(w.String() + "\n")
	}
	for _, want := range []string{
		"b.yaml:11: a/ok-4: input is over 100 times its family's: 150 against 1 USD/Mtok",
		"a/ok-5: input is under a 100th of its family's: 0.001 against 1 USD/Mtok",
		"a/b: output is cheaper than reading the cache: 1 against 2",
		"a/b: reading the cache is dearer than fresh input",
		"a/c: cache_write is cheaper than reading the cache",
		"a/c: an hour in the cache is cheaper than five minutes",
		"a/d: cache_write is over 4 times fresh input",
		"a/d: output is over 50 times input",
		"a/e: ends before it begins",
		"a/e: never holds",
		"a/f: free, though its name does not say so",
		"a/i: its own name is priced by h",
		"a/i: input is cheaper over 5 tokens",
		"b.yaml:6: a: an adjustment that no model's id matches: exact gone",
	} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("lacks %q", want)
		}
	}
	for _, never := range []string{"ok-1:", "ok-2:", "ok-3:", "g-free"} {
		if strings.Contains(got.String(), never) {
			t.Errorf("warns of %s:\n%s", never, got.String())
		}
	}
}

func TestDiff(t *testing.T) {
	a, err := Parse(book("providers: [{id: a, models: [{id: m, prices: {per_mtok: {input: 1}}}, {id: n, prices: {per_mtok: {input: 1}}}, {id: s, prices: {per_mtok: {input: 1}}}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse(book("providers: [{id: a, models: [{id: m, prices: {per_mtok: {input: 2}}}, {id: o, prices: {per_mtok: {input: 1}}}, {id: s, prices: {per_mtok: {input: 1.0}}}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	changes := Diff(a, b)
	if len(changes) != 3 || changes[0].Where != "a/m" || changes[0].New[1] != "input 2" ||
		changes[1].Where != "a/n" || changes[1].New != nil || changes[2].Where != "a/o" || changes[2].Old != nil {
		t.Errorf("%+v", changes)
	}
}
