package pricing

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/llm"
)

// TestSchemaKnowsWhatTheReaderKnows asks the reader for the keys it takes in every
// place, with a key it cannot know, and holds the schema against its answer.
func TestSchemaKnowsWhatTheReaderKnows(t *testing.T) {
	data, err := os.ReadFile("book/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]any
	}
	var schema struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"":          "?: 1",
		"currency":  "currencies: {X: {?: 1}}",
		"calendar":  "calendars: {X: {?: 1}}",
		"provider":  "providers: [{?: 1}]",
		"matcher":   "providers: [{models: [{match: {?: 1}}]}]",
		"model":     "providers: [{models: [{?: 1}]}]",
		"card":      "providers: [{models: [{prices: {?: 1}}]}]",
		"step":      "providers: [{models: [{prices: {above: [{?: 1}]}}]}]",
		"adjust":    "providers: [{adjust: [{?: 1}]}]",
		"derive":    "providers: [{derive: [{?: 1}]}]",
		"add":       "providers: [{add: [{?: 1}]}]",
		"override":  "overrides: [{?: 1}]",
		"api":       "apis: [{?: 1}]",
		"hourly":    "providers: [{self_hosted: {?: 1}}]",
		"resources": "resources: {?: 1}",
		"rates":     "providers: [{models: [{prices: {per_mtok: {?: 1}}}]}]",
	} {
		of := schema.Defs[name]
		if name == "" {
			of = schema.object
		}
		_, err := Parse(book(strings.ReplaceAll(text, "?", "unheard_of")))
		if err == nil {
			t.Fatalf("%s: an unknown key was taken", name)
		}
		_, list, ok := strings.Cut(err.Error(), "known here are ")
		if name == "rates" {
			_, list, ok = strings.Cut(err.Error(), "known are ")
		}
		if !ok {
			t.Fatalf("%s: %v", name, err)
		}
		list, _, _ = strings.Cut(list, "\n")
		want := strings.Split(list, ", ")
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(of.Properties)); !slices.Equal(got, want) {
			t.Errorf("%s: schema %v, reader %v", name, got, want)
		}
	}
	if n := len(schema.Defs["rates"].Properties); n != int(llm.NumClasses) {
		t.Errorf("%d classes", n)
	}
}
