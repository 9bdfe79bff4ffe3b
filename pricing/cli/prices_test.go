package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// prices runs `tollwire prices` with args.
func prices(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	c := Prices()
	c.SetOut(&out)
	c.SetErr(&errs)
	c.SetArgs(args)
	c.SilenceUsage, c.SilenceErrors = true, true
	err = c.Execute()
	return out.String(), errs.String(), err
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

const head = "format: tollwire-prices/1\ndate: 2026-12-24\nproviders:\n"

func TestPricesLint(t *testing.T) {
	good := write(t, "good.yaml", head+"  - {id: openai, models: [{id: mine, prices: {per_mtok: {input: 1, output: 2}}}]}\n")
	out, _, err := prices(t, "lint", good)
	if err != nil || !strings.HasPrefix(out, "price book 2026-12-24+") || !strings.HasSuffix(out, "0 warnings\n") {
		t.Errorf("%q, %v", out, err)
	}
	odd := write(t, "odd.yaml", head+"  - {id: openai, models: [{id: mine, prices: {per_mtok: {input: 1, cache_read: 3, output: 2}}}]}\n")
	out, _, err = prices(t, "lint", "--strict", odd)
	if !errors.Is(err, ErrFindings) || !strings.Contains(out, odd+":4: openai/mine: output is cheaper than reading the cache") {
		t.Errorf("%q, %v", out, err)
	}
	bad := write(t, "bad.yaml", head+"  - {id: openai, models: [{id: mine, prices: {per_mtok: {in: 1}}}]}\n")
	if _, _, err = prices(t, "lint", bad); err == nil || !strings.Contains(err.Error(), bad+":4:") || !strings.Contains(err.Error(), `unknown class "in"`) {
		t.Error(err)
	}
	if _, _, err = prices(t, "lint", "--alone"); err == nil {
		t.Error("no book at all")
	}
}

func TestPricesDiff(t *testing.T) {
	over := write(t, "o.yaml", head+"  - {id: openai, models: [{id: gpt-4.1, prices: {per_mtok: {input: 1.5, output: 8}}}]}\n")
	out, _, err := prices(t, "diff", "-", over)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"openai/gpt-4.1\n  - input 2, cache_read 0.5, output 8, searches 10/k", "\n  + input 1.5, output 8, searches 10/k", ": 1 changes\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s\nlacks %q", out, want)
		}
	}
}

func TestPricesShow(t *testing.T) {
	out, _, err := prices(t, "show", "aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0")
	if err != nil || !strings.Contains(out, "input 3.3, ") || !strings.Contains(out, "(default.yaml:") || !strings.Contains(out, "adjust tier batch, times 0.5") {
		t.Errorf("%s%v", out, err)
	}
	if out, _, err = prices(t, "show", "deepseek"); err != nil || !strings.Contains(out, "09:00-12:00 mon|tue|wed|thu|fri Asia/Shanghai, times 2") {
		t.Errorf("%s%v", out, err)
	}
	if out, _, err = prices(t, "show"); err != nil || strings.Count(out, "\n") < 36 {
		t.Errorf("%s%v", out, err)
	}
	if _, _, err = prices(t, "show", "openai", "nothing-like-it"); err == nil {
		t.Error("an unknown model")
	}
}

func TestPricesImport(t *testing.T) {
	data := write(t, "data.json", `[{"id": "p", "api_pattern": "https://api\\.(p|q)\\.com/v1", "model_match": {"contains": "x"}, "models": [
	  {"id": "m", "name": "Em", "description": "long prose", "match": {"or": [{"equals": "m"}, {"starts_with": "m-"}, {"regex": "^n\\d$"}, {"and": [{"contains": "a"}, {"ends_with": "b"}]}]},
	   "prices": [{"prices": {"input_mtok": {"base": 1, "tiers": [{"start": 100, "price": 2}]}, "output_mtok": 0.30000000000000004, "made_up_mtok": 1}},
	              {"constraint": {"start_date": "2026-05-01"}, "prices": {"input_mtok": 5}},
	              {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 6}},
	              {"constraint": {"weekday": 1}, "prices": {"input_mtok": 7}}]},
	  {"id": "no", "match": {"equals": "no"}, "prices": {}}]}]`)
	book := filepath.Join(t.TempDir(), "book.yaml")
	_, report, err := prices(t, "import", "genai-prices", data, "-o", book, "--date", "2026-08-21")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(book)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"date: 2026-08-21\n",
		"endpoints: [api.p.com/v1, api.q.com/v1]",
		`match: {exact: [m], prefix: ["m-"], regex: ["^n\\d$"], all: [{contains: [a]}, {suffix: [b]}]}`,
		`- {per_mtok: {input: 1, output: 0.3}, above: [{input_tokens: 100, per_mtok: {input: 2}}]}`,
		`- {from: 2026-05-01, per_mtok: {input: 5}}`,
		`- {hours: "00:30-16:30", per_mtok: {input: 6}}`,
		"- id: \"no\"\n        prices: {per_mtok: {input: 0, output: 0}}",
	} {
		if !strings.Contains(string(got), strings.ReplaceAll(want, `"m-"`, `m-`)) {
			t.Errorf("%s\nlacks %s", got, want)
		}
	}
	if strings.Contains(string(got), "prose") || strings.Contains(string(got), "Em") {
		t.Error("descriptions are not copied")
	}
	for _, want := range []string{
		"carried over: 1 providers, 2 models, 6 prices",
		"not carried over: made_up_mtok (a book has no such class): 1: p/m",
		"output_mtok of 0.30000000000000004 (rounded to 0.3)",
		"price (a constraint of another kind): 1: p/m",
		"model_match (a provider is never guessed from a model's name): 1: p",
		"carried over as free, having an empty set of prices: 1: p/no",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("%s\nlacks %s", report, want)
		}
	}
	for _, args := range [][]string{{"import", "other", data}, {"import", "genai-prices", "/nowhere"}, {"import", "genai-prices", book}} {
		if _, _, err := prices(t, args...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestPriceLines(t *testing.T) {
	b, err := Book(false)
	if err != nil {
		t.Fatal(err)
	}
	in := strings.NewReader(`{"id":"1","provider":"openai","model":"gpt-4.1","at":"2026-01-01T00:00:00Z","usage":{"input":1000,"output":1000}}

{"id":"2","provider":"openai","model":"gpt-4.1","at":"2026-01-01T00:00:00Z","usage":{"input":1000,"output":1000},"service_tier":"batch"}
{"id":"3","provider":"openai","model":"gpt-9","at":"2026-01-01T00:00:00Z","usage":{"input":1}}
{"id":"4","provider":"openai","model":"gpt-4.1","at":"2026-01-01T00:00:00Z"}
{"id":"5","provider":"anthropic","model":"claude-opus-4-6","at":"2026-04-01T00:00:00Z","usage":{"input":1000},"region":"us"}
`)
	var out bytes.Buffer
	if err := Price(b, in, &out); err != nil {
		t.Fatal(err)
	}
	const want = `{"id":"1","usd":"0.01"}
{"id":"2","usd":"0.005"}
{"id":"3","unpriced":"unknown_model"}
{"id":"4","unpriced":"usage_missing"}
{"id":"5","usd":"0.0055"}
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
	for in, want := range map[string]string{
		"{\"id\":\"1\"}\n{":                            "line 2: ",
		`{"usage":{"tokens":1}}`:                       `unknown class "tokens"`,
		`{"usage":{"input":-1}}`:                       "input cannot be -1",
		`{"usage":{"input":1.5}}`:                      "input cannot be 1.5",
		`{"at":"yesterday"}`:                           "line 1: ",
		strings.Repeat(" ", maxLine+10) + `{"id":"1"}`: "line 1: ",
	} {
		if err := Price(b, strings.NewReader(in), &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", in, err, want)
		}
	}
}
