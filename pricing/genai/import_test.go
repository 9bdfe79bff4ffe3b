package genai_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/pricing"
	"github.com/tollwire/tollwire/pricing/genai"
)

// FuzzImport: hostile data gives an error, or a text that the book's reader takes or
// refuses as YAML that it can read; `prices import` checks it the same way.
func FuzzImport(f *testing.F) {
	f.Add([]byte(`[{"id":"p","api_pattern":"https://api\\.(p|q)\\.com","models":[{"id":"m","match":{"or":[{"equals":"m"},{"regex":"^n$"}]},"prices":{"input_mtok":{"base":1,"tiers":[{"start":5,"price":2}]},"web_searches_kcount":3}}]}]`))
	f.Add([]byte(`[{"id":"p","models":[{"id":"m: \"x\" #","match":{"and":[{"contains":"'"},{"ends_with":"\\"}]},"prices":[{"prices":{"input_mtok":1e-9}},{"constraint":{"start_date":"2026-01-01"},"prices":{}}]}]}]`))
	f.Add([]byte(`[{"id":"on","models":[{"id":"null","match":{"equals":"~"},"prices":{"requests_kcount":0.1}}]}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		book, _, err := genai.Import(data, genai.Options{Date: time.Unix(0, 0), Source: "fuzz"})
		if err != nil {
			return
		}
		if _, err := pricing.Parse(pricing.Source{Name: "imported", Data: book}); err != nil && strings.Contains(err.Error(), "no valid YAML") {
			t.Fatalf("%v\n%s", err, book)
		}
	})
}
