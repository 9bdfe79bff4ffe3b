package jsonl_test

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/llm"
)

// TestDocumentedKeys holds docs/records.md and Line to the code: every key that a line
// can have stands on the page and is read back, and no other does.
func TestDocumentedKeys(t *testing.T) {
	page, err := os.ReadFile("../../docs/records.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	source, err := os.ReadFile("append.go")
	if err != nil {
		t.Fatal(err)
	}
	written := make(map[string]bool)
	for _, m := range regexp.MustCompile(`\bl\.[a-z]+\("([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		if !strings.HasSuffix(m[1], ".") { // a prefix
			written[m[1]] = true
		}
	}
	if len(written) < 40 {
		t.Fatalf("only %d keys found in append.go", len(written))
	}
	for _, v := range vectors {
		var m map[string]any
		if err := json.Unmarshal(jsonl.Append(nil, v.record), &m); err != nil {
			t.Fatal(err)
		}
		for k := range m {
			open := slices.ContainsFunc([]string{"k8s.pod.label.", "http.response.header.", "tollwire.baggage."},
				func(prefix string) bool { return strings.HasPrefix(k, prefix) })
			if _, stated := v.record.Owner.Attributes[k]; !open && !stated {
				written[k] = true
			}
		}
	}
	read := make(map[string]bool)
	for f := range reflect.TypeFor[jsonl.Line]().Fields() {
		read[f.Tag.Get("json")] = true
	}
	for k := range written {
		if !documented[k] {
			t.Errorf("%s is not in docs/records.md", k)
		}
		if !read[k] && !strings.HasPrefix(k, "k8s.") {
			t.Errorf("%s is not in Line", k)
		}
	}
	for k := range documented {
		// Names of controllers come from attribution, those of labels from pods.
		workload := regexp.MustCompile(`^k8s\.(replicaset|deployment|statefulset|daemonset|job|cronjob)\.name$`).MatchString(k)
		open := k == "k8s.pod.label.KEY" || k == "http.response.header.NAME" || k == "tollwire.baggage.KEY"
		if !written[k] && !workload && !open {
			t.Errorf("docs/records.md names %s, which no record has", k)
		}
	}
	for c := range llm.NumClasses {
		if !strings.Contains(string(page), "`"+c.String()+"`") {
			t.Errorf("the class %s is not in docs/records.md", c)
		}
	}
}
