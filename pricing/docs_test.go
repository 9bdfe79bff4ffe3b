package pricing

import (
	"os"
	"regexp"
	"testing"
)

// TestDocumentedBook reads the book in the reference as the agent would.
func TestDocumentedBook(t *testing.T) {
	doc, err := os.ReadFile("../docs/pricing.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(doc, -1)
	if len(blocks) == 0 {
		t.Fatal("no book in the reference")
	}
	for i, block := range blocks {
		if _, err := Parse(append(DefaultSources(), Source{"docs/pricing.md", block[1]})...); err != nil {
			t.Errorf("book %d: %v", i+1, err)
		}
	}
}
